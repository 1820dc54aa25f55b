"""Two separate budgets: failures are caused by the trainer, disruptions by the cluster."""

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_api.spec.fields import Recovery
from distill_api.status import DistillJobStatus
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Notice


def charged(status: DistillJobStatus, outcome: Outcome) -> DistillJobStatus:
    """The status with one more failure or disruption. Withdrawn and successful attempts are not counted."""
    return status.model_copy(
        update={
            "failures": status.failures + (outcome == Outcome.FAILED),
            "preemptions": status.preemptions + (outcome == Outcome.DISRUPTED),
        }
    )


def exceeded(status: DistillJobStatus, recovery: Recovery) -> Notice | None:
    """Which budget is exceeded. With maxFailures 3, the fourth failure ends the job."""
    attempt = attempts.newest(status)
    last = (attempt.message if attempt else None) or ""
    if status.failures > recovery.max_failures:
        message = messages.FAILURES.format(count=status.failures, limit=recovery.max_failures, last=last)
        return Notice(Reason.FAILURE_BUDGET_EXCEEDED, message)
    if recovery.max_preemptions is not None and status.preemptions > recovery.max_preemptions:
        message = messages.PREEMPTIONS.format(count=status.preemptions, limit=recovery.max_preemptions, last=last)
        return Notice(Reason.PREEMPTION_BUDGET_EXCEEDED, message)
    return None
