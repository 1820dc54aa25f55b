"""Pods whose node does not confirm their end: the node has lost power, or its network.

Kubernetes keeps such a pod until the node returns, which may be never. After spec.recovery.nodeLostTimeoutSeconds the
operator therefore force-deletes the pod, unless the installation forbids it; then the job waits until the cluster
removes the pod, because its Node object is deleted or tainted out-of-service. If the node is only disconnected, the
pod's processes may still run, but their peers are gone and they can commit nothing, because the next attempt raises the
fence before it reads a checkpoint.
docs/architecture.md has the exact guarantees.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.types import clocks, messages
from distill_operator.types.actions import Delete, Notice
from distill_operator.types.observed import PodFacts


def presumed_lost(pod: PodFacts, timeout: int, now: datetime) -> bool:
    """Whether the pod is still there `timeout` seconds after its grace period."""
    due = pod.end_due_at
    return pod.live and due is not None and now >= due + timedelta(seconds=timeout)


def lost_node(pods: Iterable[PodFacts], timeout: int, now: datetime) -> Notice | None:
    """Why the attempt ended, if it lost a node: this explains broken connections and stalls."""
    lost = next((pod for pod in pods if presumed_lost(pod, timeout, now)), None)
    if lost is None:
        return None
    return Notice(
        Reason.NODE_LOST, messages.POD_GIVEN_UP.format(pod=lost.name, node=lost.node, seconds=timeout), lost.node
    )


def blocking(pods: Iterable[PodFacts], timeout: int, now: datetime, *, forced: bool) -> Notice | None:
    """Which pods past their grace period block the next attempt, and until when; None when there are none.

    `forced`: whether the installation allows forced deletion; without it they block until somebody removes them.
    """
    late = [(pod, pod.end_due_at) for pod in pods if pod.live and pod.end_due_at is not None and now >= pod.end_due_at]
    if not late:
        return None
    names = ", ".join(f"{pod.name} on node {pod.node}" for pod, _ in late)
    if not forced:
        return Notice(Reason.NODE_LOST, messages.NODES_HOLD_THE_JOB.format(pods=names))
    until = max(due for _, due in late) + timedelta(seconds=timeout)
    return Notice(Reason.NODE_LOST, messages.NODES_NOT_RESPONDING.format(pods=names, at=clocks.time_of_day(until)))


def removals(pods: Iterable[PodFacts], timeout: int, now: datetime, *, forced: bool) -> tuple[Delete, ...]:
    """The forced deletion of the pods on lost nodes, where the installation allows it."""
    if not forced:
        return ()
    return tuple(Delete("Pod", pod.name, pod.uid, at_once=True) for pod in pods if presumed_lost(pod, timeout, now))


def seconds_left(pods: Iterable[PodFacts], timeout: int, now: datetime) -> float | None:
    """Seconds until a pod passes its grace period or its node counts as lost; None when none is being deleted."""
    dues = [pod.end_due_at for pod in pods if pod.live and pod.end_due_at is not None]
    left = [(due + timedelta(seconds=more) - now).total_seconds() for due in dues for more in (0, timeout)]
    return min((seconds for seconds in left if seconds > 0), default=None)
