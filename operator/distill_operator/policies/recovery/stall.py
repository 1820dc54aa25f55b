"""An attempt whose pods are all running but which makes no progress is ended."""

from datetime import datetime

from distill_api.constants import METRICS_PORT
from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import PodFacts


def stalled(attempt: Attempt, pods: tuple[PodFacts, ...], timeout: int, now: datetime) -> Notice | None:
    """Why the attempt ends: it made no progress, neither steps nor a validation, for `timeout` seconds.

    The time counts from the start of the last container; until then the scheduling timeout applies. Pods that have
    already succeeded count as running.
    """
    if len(pods) < attempt.nodes or not any(pod.running for pod in pods):
        return None
    if not all(pod.running or pod.phase == "Succeeded" for pod in pods):
        return None
    started = [pod.started_at or pod.scheduled_at for pod in pods]
    seen = (attempt.started_at, attempt.stepped_at, attempt.moved_at, *started)
    since = max(moment for moment in seen if moment is not None)
    waited = (now - since).total_seconds()
    if waited < timeout:
        return None
    if attempt.stepped_at is None and attempt.moved_at is None:
        return Notice(Reason.STALLED, messages.NO_STATUS.format(seconds=waited, port=METRICS_PORT))
    return Notice(Reason.STALLED, messages.STALLED.format(seconds=waited, step=attempt.step))
