"""Too many restarts in a row without a newly committed step end the job, whatever the budgets allow."""

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Notice


def made_progress(status: DistillJobStatus, attempt: Attempt) -> bool:
    """Whether the attempt committed a step that no earlier attempt had committed."""
    start = attempt.resumed_from_step
    if start is None:
        start = attempts.committed_before(status, attempt.number)
    return (attempt.committed_step or 0) > start


def counted(status: DistillJobStatus, attempt: Attempt, outcome: Outcome) -> DistillJobStatus:
    """The status with the restarts without progress, this attempt included. Withdrawn attempts are not counted."""
    if made_progress(status, attempt):
        return status.model_copy(update={"restarts_without_progress": 0})
    if outcome in (Outcome.FAILED, Outcome.DISRUPTED):
        count = status.restarts_without_progress + 1
        return status.model_copy(update={"restarts_without_progress": count})
    return status


def exceeded(status: DistillJobStatus, recovery: Recovery) -> Notice | None:
    """Why the job must end. With a limit of 5, the sixth restart in a row without progress ends it."""
    count, limit = status.restarts_without_progress, recovery.max_restarts_without_progress
    if count <= limit:
        return None
    attempt = attempts.newest(status)
    last = (attempt.message if attempt else None) or ""
    return Notice(Reason.NO_PROGRESS, messages.NO_PROGRESS.format(count=count, limit=limit, last=last))
