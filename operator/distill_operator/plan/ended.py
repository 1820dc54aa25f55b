"""What is stored when an attempt ends: first why, then, when its last process is gone, what that costs."""

from datetime import timedelta

from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus
from distill_operator.plan import open_attempt
from distill_operator.policies.capacity import starting
from distill_operator.policies.recovery import backoff, bad_nodes, budgets, decision, progress_guard
from distill_operator.policies.recovery.decision import End
from distill_operator.status import progress
from distill_operator.types import attempts
from distill_operator.types.pass_context import PassContext


def with_reason(context: PassContext, attempt: Attempt, end: End) -> DistillJobStatus:
    """The status with the reason for the attempt's end, and the result if the training is complete.

    Both are stored in one write before any action, because the completion record is deleted with rank 0's pod.
    """
    reason, pods = end.notice, context.observed.pods_of(attempt.number)
    status = context.status
    if attempt.reason != reason.reason:
        node = bad_nodes.of_end(reason, pods)
        ended: dict[str, object] = {"reason": reason.reason, "message": reason.message, "node": node}
        ended["ended_at"] = attempt.ended_at or context.now
        if attempt.reason is None:  # now, while the pods still tell how many nodes there were
            ended["next_nodes"] = open_attempt.next_size(context, attempt, reason.reason)
        status = attempts.with_newest(status, attempt.model_copy(update=ended))
        status = bad_nodes.after(status, pods, context.spec.recovery)
        status = _with_decision(context, attempt, end, status)
    result = progress.result(context.observed, attempt.number) if reason.reason == Reason.COMPLETED else None
    active_since = None if reason.reason in (Reason.SUSPENDED_BY_USER, Reason.QUEUE_EVICTED) else status.active_since
    return status.model_copy(update={"result": result or status.result, "active_since": active_since})


def _with_decision(context: PassContext, attempt: Attempt, end: End, status: DistillJobStatus) -> DistillJobStatus:
    """The status with the record of the end. `attempt` is the newest one as it was before."""
    if attempt.reason is None:
        lines = decision.of_end(context.observed, end, context.status, status)
    else:
        lines = decision.with_later(attempt, end, context.now)
    return attempts.with_newest(status, status.attempts[-1].model_copy(update={"decision": lines}))


def closed(context: PassContext, attempt: Attempt) -> DistillJobStatus:
    """The status once no process of the attempt is left: outcome, budget and back-off."""
    reason = attempt.reason or Reason.DISRUPTED
    outcome = attempts.outcome_of(reason)
    resized = attempt.next_nodes is not None
    status = attempts.with_newest(context.status, attempt.model_copy(update={"outcome": outcome}))
    status = progress_guard.counted(budgets.charged(status, outcome), attempt, reason)
    status = starting.counted(status, attempt, reason)
    wait = backoff.delay(
        reason,
        outcome,
        status.failed_starts if reason.facts.cannot_start else status.restarts_without_progress,
        context.observed.uid,
        attempt.number,
        context.settings,
    )
    wait = 0.0 if resized else wait
    next_at = context.now + timedelta(seconds=wait) if wait > 0 else None
    return status.model_copy(update={"next_attempt_at": next_at})
