"""An attempt whose pods all run but which gets no further is ended, so that its nodes do not burn for nothing."""

from datetime import datetime

from distill_api.constants import METRICS_PORT
from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_operator.types import messages
from distill_operator.types.actions import Notice
from distill_operator.types.observed import PodFacts


def stalled(attempt: Attempt, pods: tuple[PodFacts, ...], timeout: int, now: datetime) -> Notice | None:
    """Why the attempt is ended, once it has made no progress for `timeout` seconds: no step, no part of a validation.

    The clock starts when the last container does; while a pod does not run it is the scheduling time-out's matter.
    A pod that has succeeded is no excuse for the others.
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
        return Notice(Reason.STALLED, messages.NEVER_ANSWERED.format(seconds=waited, port=METRICS_PORT))
    return Notice(Reason.STALLED, messages.STALLED.format(seconds=waited, step=attempt.step))
