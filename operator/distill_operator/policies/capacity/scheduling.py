"""An attempt whose pods are not all scheduled and started in time is withdrawn, and its nodes are given back."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.kube import texts
from distill_operator.policies.recovery.backoff import jitter
from distill_operator.types import messages
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
    return max(placed) + allowed if any(_is_starting(pod) for pod in pods) else None


def unscheduled(pods: tuple[PodFacts, ...], nodes: int, since: datetime, timeout: int, now: datetime) -> Notice | None:
    """Why the attempt is withdrawn: some of its pods were not scheduled within `timeout` seconds of `since`."""
    if sum(pod.scheduled_at is not None for pod in pods) >= nodes or now < since + timedelta(seconds=timeout):
        return None
    why = next((pod.unschedulable for pod in pods if pod.unschedulable), "no pod was created")
    return Notice(
        Reason.SCHEDULING_TIMEOUT, messages.SCHEDULING_TIMEOUT.format(nodes=nodes, seconds=timeout, message=why)
    )


def timed_out(
    pods: tuple[PodFacts, ...], nodes: int, since: datetime, timeout: int, uid: str, number: int, now: datetime
) -> Notice | None:
    """Why the attempt ends: it has waited too long for nodes, or for its containers to start.

    An image that cannot be pulled is charged as a failure; all other waits are charged to no budget.
    """
    due_at = withdrawal_time(pods, nodes, since, timeout, uid, number)
    if due_at is None or now < due_at:
        return None
    too_few = unscheduled(pods, nodes, since, timeout, now)
    late = next((pod for pod in pods if _is_starting(pod)), None)
    if too_few is not None or late is None:
        return too_few
    reason = Reason.IMAGE_PULL if late.waiting in texts.IMAGE_PULL else Reason.SCHEDULING_TIMEOUT
    why = f"{late.waiting} {late.waiting_message}".strip() or "its containers were not started"
    return Notice(reason, messages.START_TIMEOUT.format(pod=late.name, seconds=timeout, message=why))


def _is_starting(pod: PodFacts) -> bool:
    return pod.live and pod.phase == "Pending" and pod.scheduled_at is not None


def waiting(pods: tuple[PodFacts, ...], nodes: int, number: int) -> Notice:
    """What an attempt waits for before its first step."""
    unplaced = [pod for pod in pods if pod.live and pod.unschedulable]
    if unplaced:
        message = messages.UNSCHEDULABLE.format(
            attempt=number, waiting=len(unplaced), nodes=nodes, message=unplaced[0].unschedulable
        )
        return Notice(Reason.UNSCHEDULABLE, message)
    for pod in pods:
        if pod.live and pod.waiting:
            reason = Reason.IMAGE_PULL if pod.waiting in texts.IMAGE_PULL else Reason.PODS_STARTING
            message = messages.NOT_STARTING.format(
                attempt=number, pod=pod.name, reason=pod.waiting, message=pod.waiting_message
            )
            return Notice(reason, message)
    running = sum(pod.running for pod in pods)
    return Notice(Reason.PODS_STARTING, messages.PODS_STARTING.format(attempt=number, running=running, nodes=nodes))
