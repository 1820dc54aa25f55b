"""The rules while an attempt is open: from its creation until its last process is gone."""

from datetime import datetime, timedelta

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus
from distill_operator import builders
from distill_operator.kube import texts
from distill_operator.policies.capacity import elasticity, growth, scheduling
from distill_operator.policies.lifetime import deadlines, suspend
from distill_operator.policies.recovery import backoff, budgets, classify, cleanup, node_lost, progress_guard, stall
from distill_operator.status import progress
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Action, Decision, Delete, Notice
from distill_operator.types.observed import JobFacts, Observed, PodFacts, Rejection
from distill_operator.types.pass_context import PassContext

OVERTIME_SECONDS = 30
"""Time beyond the grace period after which the operator deletes pods that should have ended by themselves."""

NO_PODS_WAKE_SECONDS = 5.0
"""How often timeouts are checked while no watch event is expected."""


def end_of(context: PassContext, attempt: Attempt) -> Notice | None:
    """Why the attempt has ended or must end; None while it continues. The first stored reason stays, but for two
    cases: a completion record replaces it, because the work is done whatever happened to the pods; and a lost node
    replaces a broken connection or a stall, because it explains them.
    """
    observed, spec, now = context.observed, context.spec, context.now
    record = classify.completion(observed, attempt.number)
    if record is not None:
        return record
    if attempt.reason is not None:
        return _or_lost_node(context, attempt, Notice(attempt.reason, attempt.message or ""))
    pods = tuple(pod for pod in observed.pods_of(attempt.number) if not pod.gone)
    return (
        _or_lost_node(context, attempt, classify.cause(observed, attempt.number, attempt.job_uid, now))
        or suspend.requested(spec)
        or deadlines.exceeded(spec.active_deadline_seconds, context.status.started_at, now)
        or _permanent_refusal(observed)
        or _withdrawn(context, attempt, pods)
        or stall.stalled(attempt, pods, spec.recovery.stall_timeout_seconds, now)
        or growth.ready(context, attempt)
    )


def _or_lost_node(context: PassContext, attempt: Attempt, cause: Notice | None) -> Notice | None:
    """The cause, or the lost node that explains it or that would explain one still to be found."""
    if cause is not None and not cause.reason.facts.lost_node_explains:
        return cause
    pods, timeout = context.observed.pods_of(attempt.number), context.spec.recovery.node_lost_timeout_seconds
    return node_lost.lost_node(pods, timeout, context.now) or classify.node_loss(pods) or cause


def _withdrawn(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> Notice | None:
    """Why the attempt is withdrawn: its pods have waited too long for nodes. Time in a queue does not count."""
    observed = context.observed
    job = observed.job_of(attempt.number)
    if job is not None and job.suspended:
        return None
    timeout = context.spec.recovery.scheduling_timeout_seconds
    since = _admitted_at(context, attempt)
    return _withdrawn_to_shrink(context, attempt, pods) or scheduling.timed_out(
        pods, attempt.nodes, since, timeout, observed.uid, attempt.number, context.now
    )


def _admitted_at(context: PassContext, attempt: Attempt) -> datetime:
    """When the scheduling timeout began: when the Job was admitted, or with the attempt while there is no Job."""
    exists = context.observed.job_of(attempt.number) is not None
    return (attempt.admitted_at or context.now) if exists else attempt.started_at


def _withdrawn_to_shrink(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> Notice | None:
    """Why the attempt is withdrawn for a smaller one: its pods have waited long enough to try with fewer nodes."""
    size = _next_size(context, attempt, Reason.SCHEDULING_TIMEOUT)
    had_room = attempt.scheduled_at is not None  # a missing pod is gone then, not unscheduled
    if size is None or context.spec.elastic is None or had_room:
        return None
    timeout = context.spec.elastic.shrink_after_seconds
    notice = scheduling.unscheduled(pods, attempt.nodes, _admitted_at(context, attempt), timeout, context.now)
    return notice and Notice(notice.reason, notice.message + messages.SHRINKING.format(nodes=size))


def _next_size(context: PassContext, attempt: Attempt, reason: Reason) -> int | None:
    """Nodes of the next attempt, if this one ends for this reason in order to change their number."""
    if reason == Reason.GROWING:
        return growth.target(context, attempt)
    pods = [pod for pod in context.observed.pods_of(attempt.number) if not pod.gone]
    placed = sum(pod.scheduled_at is not None for pod in pods)
    if reason != Reason.SCHEDULING_TIMEOUT or placed >= attempt.nodes:
        return None
    return elasticity.smaller(context.spec, attempt.nodes, placed)


def _permanent_refusal(observed: Observed) -> Notice | None:
    rejection = observed.rejection
    if rejection is None or not rejection.reason.facts.permanent:
        return None
    message = messages.REJECTED.format(what=rejection.what, message=rejection.message)
    return Notice(rejection.reason, message)


def with_reason(context: PassContext, attempt: Attempt, reason: Notice) -> DistillJobStatus:
    """The status with the reason for the attempt's end, and the result if the training is complete.

    Both are stored in one write before any action, because the completion record is deleted with rank 0's pod.
    """
    ended = {"reason": reason.reason, "message": reason.message, "ended_at": attempt.ended_at or context.now}
    if attempt.reason is None:  # now, while the pods still tell how many nodes there were
        ended["next_nodes"] = _next_size(context, attempt, reason.reason)
    status = attempts.with_newest(context.status, attempt.model_copy(update=ended))
    result = progress.result(context.observed, attempt.number) if reason.reason == Reason.COMPLETED else None
    return status.model_copy(update={"result": result or status.result})


def gang_is_alive(observed: Observed, attempt: Attempt) -> bool:
    """Whether a process of the attempt may still run, or its Job may still start one."""
    job = observed.job_of(attempt.number)
    return (job is not None and not job.inert) or any(pod.live for pod in observed.pods_of(attempt.number))


def _passing_refusal(rejection: Rejection | None) -> Notice | None:
    """What a refusal that may pass waits for."""
    if rejection is None or rejection.reason.facts.permanent:
        return None
    text = messages.REFUSED_FOR_NOW[rejection.reason]
    if texts.names_missing_priority_class(rejection.message):
        text = messages.NO_PRIORITY_CLASS
    return Notice(rejection.reason, text.format(what=rejection.what, message=rejection.message))


def _stored_wait(status: DistillJobStatus) -> Notice | None:
    """What the last refusal waited for, as stored. It is shown until the Job exists."""
    return Notice(status.waiting.reason, status.waiting.message) if status.waiting is not None else None


def continue_attempt(context: PassContext, attempt: Attempt) -> Decision:
    """The attempt is healthy: create the objects that it lacks, and read rank 0's status again soon."""
    observed = context.observed
    job = observed.job_of(attempt.number)
    if job is not None:
        attempt = _with_job(attempt, job, context.now)
    context = context.with_status(attempts.with_newest(context.status, attempt))
    missing = builders.gang(observed, attempt, context.settings.trainer_image) if job is None else ()
    to_do: tuple[Action, ...] = (*cleanup.remove_late_jobs(observed, attempt.number), *missing)

    notice = _passing_refusal(observed.rejection) or (_stored_wait(context.status) if job is None else None)
    if notice is not None:
        return Decision(context.in_phase(Phase.PENDING), notice, to_do, NO_PODS_WAKE_SECONDS, waits=True)
    if job is not None and job.suspended:
        notice = Notice(Reason.PODS_STARTING, messages.QUEUED.format(attempt=attempt.number))
        return Decision(context.in_phase(Phase.QUEUED), notice, to_do, NO_PODS_WAKE_SECONDS)

    pods = tuple(pod for pod in observed.pods_of(attempt.number) if not pod.gone)
    context, grow = growth.with_placeholders(context, attempt)
    to_do = (*to_do, *grow)
    if attempt.running_at is None:
        wake = (
            context.settings.poll
            if any(pod.running for pod in pods) or not pods
            else _seconds_until_withdrawn(context, attempt, pods)
        )
        notice = scheduling.waiting(pods, attempt.nodes, attempt.number)
        return Decision(context.in_phase(Phase.STARTING), notice, to_do, wake)
    notice = Notice(Reason.TRAINING, messages.TRAINING.format(attempt=attempt.number))
    return Decision(context.in_phase(Phase.RUNNING), notice, to_do, context.settings.poll)


def _with_job(attempt: Attempt, job: JobFacts, now: datetime) -> Attempt:
    """The attempt with the UID of its Job, and when the Job was admitted; null while a queue holds it."""
    admitted_at = None if job.suspended else attempt.admitted_at or now
    return attempt.model_copy(update={"job_uid": attempt.job_uid or job.uid, "admitted_at": admitted_at})


def _seconds_until_withdrawn(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> float:
    timeout = context.spec.recovery.scheduling_timeout_seconds
    since = _admitted_at(context, attempt)
    due = scheduling.withdrawal_time(pods, attempt.nodes, since, timeout, context.observed.uid, attempt.number)
    left = (due - context.now).total_seconds() if due is not None else NO_PODS_WAKE_SECONDS
    return min(max(left, 0.0), NO_PODS_WAKE_SECONDS)


def terminate(context: PassContext, attempt: Attempt) -> Decision:
    """The attempt has ended but some pods have not: delete those that will not end by themselves, and wait."""
    observed, reason = context.observed, attempt.reason or Reason.DISRUPTED
    live = [pod for pod in observed.pods_of(attempt.number) if pod.live]
    timeout = context.spec.recovery.node_lost_timeout_seconds
    notice = node_lost.blocking(live, timeout, context.now) or Notice(
        reason,
        messages.PODS_TERMINATING.format(
            attempt=attempt.number, reason=reason, message=attempt.message, live=len(live)
        ),
    )
    ended_at = attempt.ended_at or context.now
    overtime = timedelta(seconds=context.spec.recovery.grace_period_seconds + OVERTIME_SECONDS)
    left = (ended_at + overtime - context.now).total_seconds()
    job = observed.job_of(attempt.number)
    lost = node_lost.removals(live, timeout, context.now)
    actions: tuple[Action, ...] = growth.remove_placeholders(context) if reason != Reason.GROWING else ()
    if job is not None and not job.deleting and (reason.facts.ended_by_operator or left <= 0 or lost):
        # This also releases the pods on lost nodes: the Job controller's finalizer keeps them while the Job exists.
        actions = (*actions, Delete("Job", job.name, job.uid, foreground=True))
    actions = (*actions, *lost)
    phase = context.status.phase if reason.facts.keeps_phase else Phase.RECOVERING
    waits = (left if left > 0 else NO_PODS_WAKE_SECONDS, node_lost.seconds_left(live, timeout, context.now))
    wake = min(seconds for seconds in waits if seconds is not None)
    return Decision(context.in_phase(phase), notice, actions, wake)


def closed(context: PassContext, attempt: Attempt) -> DistillJobStatus:
    """The status once no process of the attempt is left: outcome, budget and back-off."""
    reason = attempt.reason or Reason.DISRUPTED
    outcome = attempts.outcome_of(reason)
    resized = attempt.next_nodes is not None
    status = attempts.with_newest(context.status, attempt.model_copy(update={"outcome": outcome}))
    status = progress_guard.counted(budgets.charged(status, outcome), attempt, outcome)
    wait = backoff.delay(
        reason,
        outcome,
        status.restarts_without_progress,
        context.observed.uid,
        attempt.number,
        context.settings,
    )
    wait = 0.0 if resized else wait
    next_at = context.now + timedelta(seconds=wait) if wait > 0 else None
    return status.model_copy(update={"next_attempt_at": next_at})
