"""An attempt whose pods are not all scheduled and started in time is withdrawn, and its nodes are given back."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.policies.capacity import starting
from distill_operator.policies.recovery.backoff import jitter
from distill_operator.types import clocks, messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import PodFacts

JITTER = 0.25
"""The timeout is up to this fraction longer, by attempt, so that two waiting jobs do not withdraw together."""


def withdrawal_time(
    pods: tuple[PodFacts, ...], nodes: int, since: datetime, timeout: int, uid: str, number: int
) -> datetime | None:
    """When the attempt is withdrawn; None once all its pods have started.

    The pods have `timeout` seconds from `since` to be scheduled, and as long again, from then, to start.
    """
    allowed = timedelta(seconds=timeout * (1 + JITTER * jitter(uid, number)))
    placed = [pod.scheduled_at for pod in pods if pod.scheduled_at]
    if len(placed) < nodes:
        return since + allowed
    return max(placed) + allowed if any(pod.starting for pod in pods) else None


def unscheduled(
    pods: tuple[PodFacts, ...], nodes: int, since: datetime, timeout: int, now: datetime, *, refusal: str | None = None
) -> Notice | None:
    """Why the attempt is withdrawn: some of its pods were not scheduled within `timeout` seconds of `since`.

    `refusal` says why some do not even exist, if that is known.
    """
    if sum(pod.scheduled_at is not None for pod in pods) >= nodes or now < since + timedelta(seconds=timeout):
        return None
    why = refusal or next((pod.unschedulable for pod in pods if pod.unschedulable), messages.NO_POD)
    return Notice(
        Reason.SCHEDULING_TIMEOUT, messages.SCHEDULING_TIMEOUT.format(nodes=nodes, seconds=timeout, message=why)
    )


def timed_out(
    pods: tuple[PodFacts, ...],
    nodes: int,
    since: datetime,
    timeout: int,
    uid: str,
    number: int,
    now: datetime,
    *,
    refusal: str | None = None,
) -> Notice | None:
    """Why the attempt ends: it has waited too long for nodes, or for its containers to start.

    It is charged to no budget.
    """
    due_at = withdrawal_time(pods, nodes, since, timeout, uid, number)
    if due_at is None or now < due_at:
        return None
    too_few = unscheduled(pods, nodes, since, timeout, now, refusal=refusal)
    late = next((pod for pod in pods if pod.starting), None)
    if too_few is not None or late is None:
        return too_few
    found = starting.problem(pods)
    if found is not None:
        message = messages.START_TIMEOUT.format(pod=found.pod.name, seconds=timeout, message=found.why)
        return Notice(found.reason, message, found.pod.node)
    why = f"{late.waiting} {late.waiting_message}".strip() or messages.NOT_STARTED
    return Notice(Reason.SCHEDULING_TIMEOUT, messages.START_TIMEOUT.format(pod=late.name, seconds=timeout, message=why))


def waiting(pods: tuple[PodFacts, ...], nodes: int, number: int, let_go_at: datetime | None = None) -> Notice:
    """What an attempt waits for before its first step; `let_go_at` is when it stops waiting for a pod to start."""
    found = starting.problem(pods)
    if found is not None:
        message = messages.NOT_STARTING.format(attempt=number, pod=found.pod.name, why=found.why)
        if let_go_at is not None:
            message += messages.LET_GO.format(at=clocks.time_of_day(let_go_at))
        return Notice(found.reason, message)
    unplaced = [pod for pod in pods if pod.live and pod.unschedulable]
    if unplaced:
        message = messages.UNSCHEDULABLE.format(
            attempt=number, waiting=len(unplaced), nodes=nodes, message=unplaced[0].unschedulable
        )
        return Notice(Reason.UNSCHEDULABLE, message)
    for pod in pods:
        if pod.live and pod.waiting:
            why = f"{pod.waiting}: {pod.waiting_message}"
            message = messages.NOT_STARTING.format(attempt=number, pod=pod.name, why=why)
            return Notice(Reason.PODS_STARTING, message)
    running = sum(pod.running for pod in pods)
    return Notice(Reason.PODS_STARTING, messages.PODS_STARTING.format(attempt=number, running=running, nodes=nodes))
