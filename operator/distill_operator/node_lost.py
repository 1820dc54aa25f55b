"""A pod that its node should have ended, and did not say that it has: the node has lost power, or its network.

Such a pod holds the job until the API server forgets it. Ignoring it would start a second gang while the first may
still run on a node that is only cut off; what knows that a node is off (the node's deletion, the taint
out-of-service, a forced deletion of the pod) removes the pod as well, and then the job goes on by itself.
"""

from collections.abc import Iterable
from datetime import datetime

from distill_api.constants import Reason
from distill_operator import messages
from distill_operator.intent import Notice
from distill_operator.observed import PodFacts


def cause(pods: Iterable[PodFacts], now: datetime) -> Notice | None:
    """That the attempt lost a node: what explains the broken connections of the ranks elsewhere."""
    silent = next((pod for pod in pods if pod.silent(now)), None)
    if silent is None:
        return None
    return Notice(Reason.NODE_LOST, messages.POD_SILENT.format(pod=silent.name, node=silent.node))


def blocking(pods: Iterable[PodFacts], now: datetime) -> Notice | None:
    """Which pods hold the job, on which nodes, and what to do about it."""
    names = ", ".join(f"{pod.name} on node {pod.node}" for pod in pods if pod.silent(now))
    return Notice(Reason.NODE_LOST, messages.PODS_SILENT.format(pods=names)) if names else None
