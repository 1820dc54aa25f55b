"""Too many failures in a row without a newly committed step end the job, whatever the budgets allow. Disruptions are
not the job's fault: they make it back off, however many there are.
"""

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


def counted(status: DistillJobStatus, attempt: Attempt, reason: Reason) -> DistillJobStatus:
    """The status with the attempts without progress, this one, which ended for `reason`, included. A failure counts
    also if it is charged to no budget; withdrawn attempts do not.
    """
    restarts, failures = status.restarts_without_progress, status.failures_without_progress
    failed = reason.facts.failed
    if made_progress(status, attempt):
        restarts, failures = 0, 0
    elif failed or reason.facts.outcome == Outcome.DISRUPTED:
        restarts, failures = restarts + 1, failures + failed
    return status.model_copy(update={"restarts_without_progress": restarts, "failures_without_progress": failures})


def exceeded(status: DistillJobStatus, recovery: Recovery) -> Notice | None:
    """Why the job must end. With a limit of 5, the sixth failure in a row without progress ends it."""
    count, limit = status.failures_without_progress, recovery.max_restarts_without_progress
    if count <= limit:
        return None
    attempt = attempts.newest(status)
    last = (attempt.message if attempt else None) or ""
    return Notice(Reason.NO_PROGRESS, messages.NO_PROGRESS.format(count=count, limit=limit, last=last))
