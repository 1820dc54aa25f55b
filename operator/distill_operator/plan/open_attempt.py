"""The rules while an attempt is open: from its creation until its last process is gone."""

from collections.abc import Iterator
from datetime import datetime, timedelta

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus
from distill_operator import builders
from distill_operator.kube import texts
from distill_operator.policies.capacity import elasticity, growth, queue, scale, scheduling, starting
from distill_operator.policies.lifetime import deadlines, suspend, template
from distill_operator.policies.recovery import bad_nodes, classify, cleanup, node_lost, stall
from distill_operator.policies.recovery.decision import End, Rule
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Action, Decision, Notice
from distill_operator.types.observed import JobFacts, Observed, PodFacts, Rejection
from distill_operator.types.pass_context import PassContext

OVERTIME_SECONDS = 30
"""Time beyond the grace period after which the operator deletes pods that should have ended by themselves."""

TIMERS_WAKE_SECONDS = 5.0
"""How often timeouts are checked while nothing else wakes the job."""


def end_of(context: PassContext, attempt: Attempt) -> End | None:
    """Why the attempt has ended or must end; None while it continues. The first stored reason stays, but for three
    cases: a completion record replaces it, because the work is done whatever happened to the pods; an eviction by a
    queue replaces the deletion of pods, and a lost node a broken connection or a stall, because they explain them.
    """
    record = classify.completion(context.observed, attempt.number)
    if record is not None:
        return End(Rule.COMPLETION, record)
    if attempt.reason is not None:
        stored = Notice(attempt.reason, attempt.message or "", attempt.node)
        evicted = queue.evicted(attempt, context.observed.job_of(attempt.number))
        if evicted is not None and attempt.reason == Reason.POD_DELETED:  # the Job was read before its pods
            return End(Rule.QUEUE, evicted)
        return End(Rule.LOST_NODE, _lost_node(context, attempt, stored) or stored)
    return next((End(rule, notice) for rule, notice in _rules(context, attempt) if notice is not None), None)


def _rules(context: PassContext, attempt: Attempt) -> Iterator[tuple[Rule, Notice | None]]:
    """What each rule says, in the order of their priorities; those after the first one that holds are not asked."""
    observed, spec, now = context.observed, context.spec, context.now
    pods = tuple(pod for pod in observed.pods_of(attempt.number) if not pod.gone)
    job = observed.job_of(attempt.number)
    yield Rule.QUEUE, queue.evicted(attempt, job)
    cause = classify.cause(observed, attempt.number, attempt.job_uid, now)
    yield Rule.LOST_NODE, _lost_node(context, attempt, cause)
    yield Rule.EVENTS, cause
    yield Rule.SUSPEND, suspend.requested(spec)
    yield Rule.DEADLINE, deadlines.exceeded(spec.active_deadline_seconds, context.status.active_since, now)
    yield Rule.TEMPLATE, template.refused(spec) if job is None else None
    yield Rule.REFUSAL, _permanent_refusal(observed)
    yield Rule.SCALE, scale.scaled_down(attempt, spec)
    yield Rule.START, starting.hopeless(attempt, pods, now)
    yield Rule.SCHEDULING, _withdrawn(context, attempt, pods)
    yield Rule.STALL, stall.stalled(attempt, observed, spec.recovery.stall_timeout_seconds, now)
    yield Rule.GROWTH, growth.ready(context, attempt)


def with_start_problem(context: PassContext, attempt: Attempt) -> PassContext:
    """The context with what keeps a pod of the open attempt from starting."""
    if attempt.reason is not None:
        return context
    pods = context.observed.pods_of(attempt.number)
    return context.with_status(attempts.with_newest(context.status, starting.observed(attempt, pods, context.now)))


def _lost_node(context: PassContext, attempt: Attempt, cause: Notice | None) -> Notice | None:
    """The lost node that explains the cause, or that would explain one still to be found; None if there is none."""
    if cause is not None and not cause.reason.facts.lost_node_explains:
        return None
    pods, timeout = context.observed.pods_of(attempt.number), context.spec.recovery.node_lost_timeout_seconds
    return node_lost.lost_node(pods, timeout, context.now) or classify.node_loss(pods)


def _withdrawn(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> Notice | None:
    """Why the attempt is withdrawn: its pods have waited too long for nodes. Time in a queue does not count."""
    observed = context.observed
    job = observed.job_of(attempt.number)
    if job is not None and job.suspended:
        return None
    timeout = context.spec.recovery.scheduling_timeout_seconds
    since = _admitted_at(context, attempt)
    shrinks = next_size(context, attempt, Reason.SCHEDULING_TIMEOUT) is not None
    recovery, now = context.spec.recovery, context.now
    return (
        _withdrawn_to_shrink(context, attempt, pods)
        or (None if shrinks else bad_nodes.in_the_way(attempt, pods, since, recovery, now))
        or scheduling.timed_out(
            pods, attempt.nodes, since, timeout, observed.uid, attempt.number, now, refusal=_refusal(context)
        )
    )


def _admitted_at(context: PassContext, attempt: Attempt) -> datetime:
    """When the scheduling timeout began: when the Job was admitted, or with the attempt while there is no Job."""
    exists = context.observed.job_of(attempt.number) is not None
    return (attempt.admitted_at or context.now) if exists else attempt.started_at


def _withdrawn_to_shrink(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> Notice | None:
    """Why the attempt is withdrawn for a smaller one: its pods have waited long enough to try with fewer nodes."""
    size = next_size(context, attempt, Reason.SCHEDULING_TIMEOUT)
    had_room = attempt.scheduled_at is not None  # a missing pod is gone then, not unscheduled
    if size is None or context.spec.elastic is None or had_room:
        return None
    timeout = context.spec.elastic.shrink_after_seconds
    since = _admitted_at(context, attempt)
    notice = scheduling.unscheduled(pods, attempt.nodes, since, timeout, context.now, refusal=_refusal(context))
    return notice and Notice(notice.reason, notice.message + messages.SHRINKING.format(nodes=size))


def _refusal(context: PassContext) -> str | None:
    """Why an object of the attempt does not exist, as the API server said it last."""
    rejection, waiting = context.observed.rejection, context.status.waiting
    if rejection is not None:
        return f"{rejection.what}: {rejection.message}"
    return waiting.message if waiting is not None else None


def next_size(context: PassContext, attempt: Attempt, reason: Reason) -> int | None:
    """Nodes of the next attempt, if this one ends for this reason in order to change their number."""
    if reason == Reason.GROWING:
        return growth.target(context, attempt)
    if reason == Reason.SCALED_DOWN:
        return context.spec.nodes
    pods = [pod for pod in context.observed.pods_of(attempt.number) if not pod.gone]
    placed = sum(pod.scheduled_at is not None for pod in pods)
    if reason != Reason.SCHEDULING_TIMEOUT or placed >= attempt.nodes:
        return None
    return elasticity.smaller(context.status, context.spec, attempt.nodes, placed)


def _permanent_refusal(observed: Observed) -> Notice | None:
    rejection = observed.rejection
    if rejection is None or not rejection.reason.facts.permanent:
        return None
    message = messages.REJECTED.format(what=rejection.what, message=rejection.message)
    return Notice(rejection.reason, message)


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
    late = cleanup.remove_late_jobs(observed, attempt.number)
    if job is not None and attempt.job_uid is None and cleanup.is_stray(observed, job):
        return _among_leftovers(context, (*late, *cleanup.delete_jobs(() if job.deleting else (job,))))
    if job is not None:
        attempt = _with_job(attempt, job, context.now)
        context = context.with_status(_with_active_time(context, job))
    context = context.with_status(attempts.with_newest(context.status, attempt))
    if job is None and (observed.live_pods or late):
        return _among_leftovers(context, late)
    missing = builders.gang(observed, attempt, context.settings) if job is None else ()
    to_do: tuple[Action, ...] = (*late, *missing)

    notice = _passing_refusal(observed.rejection) or (_stored_wait(context.status) if job is None else None)
    if notice is not None:
        return Decision(context.in_phase(Phase.PENDING), notice, to_do, TIMERS_WAKE_SECONDS, waits=True)
    if job is not None and job.suspended:
        notice = Notice(Reason.PODS_STARTING, messages.QUEUED.format(attempt=attempt.number))
        return Decision(context.in_phase(Phase.QUEUED), notice, to_do, TIMERS_WAKE_SECONDS)

    pods = tuple(pod for pod in observed.pods_of(attempt.number) if not pod.gone)
    context, grow = growth.with_placeholders(context, attempt)
    to_do = (*to_do, *grow)
    if attempt.running_at is None:
        wake = (
            TIMERS_WAKE_SECONDS
            if any(pod.running for pod in pods) or not pods
            else _seconds_until_withdrawn(context, attempt, pods)
        )
        notice = scheduling.waiting(pods, attempt.nodes, attempt.number, starting.let_go_at(attempt))
        notice = bad_nodes.explained(notice, attempt, _admitted_at(context, attempt), context.spec.recovery)
        return Decision(context.in_phase(Phase.STARTING), notice, to_do, wake)
    text = messages.TRAINING.format(attempt=attempt.number) + (stall.unanswered(attempt, observed) or "")
    return Decision(context.in_phase(Phase.RUNNING), Notice(Reason.TRAINING, text), to_do, TIMERS_WAKE_SECONDS)


def _among_leftovers(context: PassContext, late: tuple[Action, ...]) -> Decision:
    """Pods of another Job live, or may yet be created: create none, for they would be a second gang."""
    names = ", ".join(pod.name for pod in context.observed.live_pods)
    jobs = ", ".join(job.name for job in context.observed.jobs)
    text = messages.LEFTOVER_PODS.format(pods=names) if names else messages.LATE_JOBS.format(jobs=jobs)
    notice = Notice(Reason.PODS_TERMINATING, text)
    return Decision(context.status, notice, late, TIMERS_WAKE_SECONDS, waits=True)


def _with_job(attempt: Attempt, job: JobFacts, now: datetime) -> Attempt:
    """The attempt with the UID of its Job, and when the Job was admitted; null until then."""
    admitted_at = attempt.admitted_at or (None if job.suspended else now)
    return attempt.model_copy(update={"job_uid": attempt.job_uid or job.uid, "admitted_at": admitted_at})


def _with_active_time(context: PassContext, job: JobFacts) -> DistillJobStatus:
    """The status with the start of the active time, which a queue that holds the Job takes back."""
    since = None if job.suspended else context.status.active_since or context.now
    return context.status.model_copy(update={"active_since": since})


def _seconds_until_withdrawn(context: PassContext, attempt: Attempt, pods: tuple[PodFacts, ...]) -> float:
    timeout = context.spec.recovery.scheduling_timeout_seconds
    since = _admitted_at(context, attempt)
    due = scheduling.withdrawal_time(pods, attempt.nodes, since, timeout, context.observed.uid, attempt.number)
    left = (due - context.now).total_seconds() if due is not None else TIMERS_WAKE_SECONDS
    return min(max(left, 0.0), TIMERS_WAKE_SECONDS)


def terminate(context: PassContext, attempt: Attempt) -> Decision:
    """The attempt has ended but some pods have not: delete those that will not end by themselves, and wait."""
    observed, reason = context.observed, attempt.reason or Reason.DISRUPTED
    live = [pod for pod in observed.pods_of(attempt.number) if pod.live]
    timeout = context.spec.recovery.node_lost_timeout_seconds
    forced = context.settings.forced_pod_deletion
    notice = node_lost.blocking(live, timeout, context.now, forced=forced) or Notice(
        reason,
        messages.PODS_TERMINATING.format(
            attempt=attempt.number, reason=reason, message=attempt.message, live=len(live)
        ),
    )
    ended_at = attempt.ended_at or context.now
    overtime = timedelta(seconds=context.spec.recovery.grace_period_seconds + OVERTIME_SECONDS)
    left = (ended_at + overtime - context.now).total_seconds()
    job = observed.job_of(attempt.number)
    lost = node_lost.removals(live, timeout, context.now, forced=forced)
    actions: tuple[Action, ...] = growth.remove_placeholders(context) if reason != Reason.GROWING else ()
    if job is not None and not job.deleting and (reason.facts.ended_by_operator or left <= 0):
        actions = (*actions, *cleanup.delete_jobs((job,)))
    else:
        actions = (*actions, *cleanup.remove_owners(observed, lost))
    orphans = (*cleanup.remove_late_jobs(observed, attempt.number), *cleanup.remove_orphans(observed, forced=forced))
    committed = attempts.committed_step(context.status)
    actions = (*actions, *queue.keep_place(attempt, job, committed, context.now), *orphans, *lost)
    phase = context.status.phase if reason.facts.keeps_phase else Phase.RECOVERING
    waits = (left if left > 0 else TIMERS_WAKE_SECONDS, node_lost.seconds_left(live, timeout, context.now))
    wake = min(seconds for seconds in waits if seconds is not None)
    return Decision(context.in_phase(phase), notice, actions, wake)
