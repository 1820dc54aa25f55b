"""A pod that its node should have ended, and did not say that it has: the node has lost power, or its network.

Kubernetes keeps such a pod's object until the node comes back, and waiting for that would hold the job for ever. So
the pod is given up after spec.recovery.nodeLostTimeoutSeconds: its object is deleted without the node's word. What may
still run on a node that is only cut off is no gang any more, because its peers are gone, and can commit nothing: the
next attempt raises the fence before it reads a checkpoint. docs/architecture.md says what exactly is promised.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.types import messages
from distill_operator.types.actions import Delete, Notice
from distill_operator.types.observed import PodFacts


def presumed_lost(pod: PodFacts, timeout: int, now: datetime) -> bool:
    """Whether the pod's node has not confirmed its end `timeout` seconds after the grace period."""
    due = pod.end_due_at
    return pod.live and due is not None and now >= due + timedelta(seconds=timeout)


def lost_node(pods: Iterable[PodFacts], timeout: int, now: datetime) -> Notice | None:
    """That the attempt lost a node: what explains broken connections and stalls."""
    lost = next((pod for pod in pods if presumed_lost(pod, timeout, now)), None)
    if lost is None:
        return None
    return Notice(Reason.NODE_LOST, messages.POD_GIVEN_UP.format(pod=lost.name, node=lost.node, seconds=timeout))


def blocking(pods: Iterable[PodFacts], timeout: int, now: datetime) -> Notice | None:
    """Which pods hold the job, on which nodes, and until when; None while none is past its grace period."""
    late = [(pod, pod.end_due_at) for pod in pods if pod.live and pod.end_due_at is not None and now >= pod.end_due_at]
    if not late:
        return None
    names = ", ".join(f"{pod.name} on node {pod.node}" for pod, _ in late)
    until = max(due for _, due in late) + timedelta(seconds=timeout)
    return Notice(Reason.NODE_LOST, messages.PODS_SILENT.format(pods=names, at=until.strftime("%H:%M:%SZ")))


def removals(pods: Iterable[PodFacts], timeout: int, now: datetime) -> tuple[Delete, ...]:
    """The deletion, without their nodes' word, of the pods that are given up."""
    return tuple(Delete("Pod", pod.name, pod.uid, at_once=True) for pod in pods if presumed_lost(pod, timeout, now))


def seconds_left(pods: Iterable[PodFacts], timeout: int, now: datetime) -> float | None:
    """Seconds until the next pod is late or given up; None when no deletion was asked for."""
    dues = [pod.end_due_at for pod in pods if pod.live and pod.end_due_at is not None]
    left = [(due + timedelta(seconds=more) - now).total_seconds() for due in dues for more in (0, timeout)]
    return min((seconds for seconds in left if seconds > 0), default=None)
