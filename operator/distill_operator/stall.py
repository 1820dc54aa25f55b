"""An attempt whose pods all run but which makes no step is ended, so that its nodes do not burn for nothing."""

from datetime import datetime

from distill_api.constants import METRICS_PORT, Reason
from distill_api.status import Attempt
from distill_operator import messages
from distill_operator.intent import Notice
from distill_operator.observed import PodFacts


def stalled(attempt: Attempt, pods: tuple[PodFacts, ...], timeout: int, now: datetime) -> Notice | None:
    """Why the attempt is ended, once no step has been seen for `timeout` seconds.

    Before the first step the clock starts when the last pod was scheduled; while a pod does not run it is the
    scheduling time-out's matter.
    """
    if sum(pod.running for pod in pods) < attempt.nodes:
        return None
    placed_at = max((pod.scheduled_at for pod in pods if pod.scheduled_at), default=attempt.started_at)
    since = attempt.stepped_at or max(placed_at, attempt.started_at)
    waited = (now - since).total_seconds()
    if waited < timeout:
        return None
    if attempt.stepped_at is None:
        return Notice(Reason.STALLED, messages.NEVER_ANSWERED.format(seconds=waited, port=METRICS_PORT))
    return Notice(Reason.STALLED, messages.STALLED.format(seconds=waited, step=attempt.step))
