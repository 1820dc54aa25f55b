"""The rules while no attempt is open: the job is finished, waits, or starts its next attempt."""

from distill_api.constants import Outcome, Phase
from distill_api.reason_facts import Wait
from distill_api.reasons import Reason
from distill_operator import builders
from distill_operator.policies.capacity import claims, elasticity, growth
from distill_operator.policies.lifetime import deadlines
from distill_operator.policies.recovery import budgets, cleanup, node_lost, progress_guard
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Decision, Notice
from distill_operator.types.pass_context import PassContext

LEFTOVERS_WAKE_SECONDS = 10.0
"""How often leftover pods are checked, besides their watch events."""
CLAIM_WAKE_SECONDS = 5.0
"""How often a missing claim is checked: claims are not watched."""


def decide(context: PassContext) -> Decision:
    """The job's next state between two attempts."""
    last = attempts.newest(context.status)
    if last is not None and last.outcome == Outcome.SUCCEEDED:
        return _finish(context, Phase.SUCCEEDED, Notice(Reason.COMPLETED, last.message or ""))
    failure = permanent_failure(context)
    if failure is not None:
        return _finish(context, Phase.FAILED, failure)
    if context.spec.suspend:
        return _suspended(context)
    return _waiting(context) or _start(context)


def permanent_failure(context: PassContext) -> Notice | None:
    """Why the job starts no further attempt."""
    last = attempts.newest(context.status)
    recovery = context.spec.recovery
    if last is not None and last.reason is not None and last.reason.facts.permanent:
        return Notice(last.reason, last.message or "")
    return (
        deadlines.exceeded(context.spec.active_deadline_seconds, context.status.started_at, context.now)
        or budgets.exceeded(context.status, recovery)
        or progress_guard.exceeded(context.status, recovery)
    )


def _finish(context: PassContext, phase: Phase, notice: Notice) -> Decision:
    progress = context.status.progress
    if progress is not None:  # a finished job has no ETA
        progress = progress.model_copy(update={"eta": None, "eta_seconds": None})
    ended = {"finished_at": context.now, "next_attempt_at": None, "progress": progress}
    status = context.in_phase(phase).model_copy(update=ended)
    return Decision(status, notice, wake_after=0.0)


def _suspended(context: PassContext) -> Decision:
    leftovers = _leftover_pods(context, context.status.phase)
    if leftovers is not None:
        return leftovers
    notice = Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDED)
    cleared = (
        *cleanup.remove_leftovers(context.observed, context.status.attempt),
        *growth.remove_placeholders(context),
    )
    return Decision(context.in_phase(Phase.SUSPENDED), notice, cleared)


def _waiting(context: PassContext) -> Decision | None:
    """Why the next attempt cannot start yet: claims, leftover pods, back-off."""
    phase = _phase(context)
    observed, status = context.observed, context.status
    if observed.claims is None:
        return _requeue(context, phase)
    problem = claims.problem(context.spec, observed.name, observed.namespace, observed.claims)
    if problem is not None and problem.reason.facts.wait == Wait.UNLIMITED:
        return Decision(context.in_phase(phase), problem, wake_after=CLAIM_WAKE_SECONDS, waits=True)
    if problem is not None:
        left = claims.seconds_to_wait(status.waiting, problem, context.settings.claim_wait, context.now)
        if left <= 0 or problem.reason.facts.wait == Wait.NONE:
            return _finish(context, Phase.FAILED, problem)
        wake = min(left, CLAIM_WAKE_SECONDS)
        return Decision(context.in_phase(phase), problem, wake_after=wake, waits=True, invalid=problem)
    leftovers = _leftover_pods(context, phase)
    if leftovers is not None:
        return leftovers
    if (mistake := _awaits_change(context)) is not None:
        cleared = cleanup.remove_leftovers(observed, status.attempt)
        return Decision(context.in_phase(phase), mistake, cleared, waits=True, invalid=mistake)
    if status.next_attempt_at is not None and context.now < status.next_attempt_at:
        last = attempts.newest(status)
        message = messages.BACKING_OFF.format(
            attempt=status.attempt,
            reason=last.reason if last else None,
            at=status.next_attempt_at.strftime("%H:%M:%SZ"),
        )
        left = (status.next_attempt_at - context.now).total_seconds()
        return Decision(
            context.in_phase(phase),
            Notice(Reason.BACKING_OFF, message),
            cleanup.remove_leftovers(observed, status.attempt),
            left,
        )
    return None


def _awaits_change(context: PassContext) -> Notice | None:
    """Why the same spec cannot be tried again, if the last attempt was started with it and has shown that."""
    last = attempts.newest(context.status)
    if last is None or last.reason is None or last.reason.facts.wait != Wait.CHANGE:
        return None
    unchanged = last.generation == context.observed.job.metadata.generation
    return Notice(last.reason, last.message or "") if unchanged else None


def _requeue(context: PassContext, phase: Phase) -> Decision:
    """Run the next pass at once: claims are not read while an attempt is open, and this one has just ended."""
    last = context.status.attempts[-1]
    return Decision(
        context.in_phase(phase), Notice(last.reason or Reason.DISRUPTED, last.message or ""), wake_after=0.0
    )


def _leftover_pods(context: PassContext, phase: Phase) -> Decision | None:
    """Wait for pods of earlier attempts and jobs that have not ended, and for Jobs that may still create some."""
    observed, newest = context.observed, context.status.attempt
    late = ", ".join(job.name for job in cleanup.active_jobs(observed, newest))
    if not observed.live_pods and not late:
        return None
    names = ", ".join(pod.name for pod in observed.live_pods)
    timeout = context.spec.recovery.node_lost_timeout_seconds
    text = messages.LEFTOVER_PODS.format(pods=names) if names else messages.LATE_JOBS.format(jobs=late)
    notice = node_lost.blocking(observed.live_pods, timeout, context.now) or Notice(Reason.PODS_TERMINATING, text)
    actions = (
        *cleanup.remove_leftovers(observed, newest),
        *node_lost.removals(observed.live_pods, timeout, context.now),
    )
    left = node_lost.seconds_left(observed.live_pods, timeout, context.now)
    wake = min(left or LEFTOVERS_WAKE_SECONDS, LEFTOVERS_WAKE_SECONDS)
    return Decision(context.in_phase(phase), notice, actions, wake, waits=True)


def _phase(context: PassContext) -> Phase:
    """Pending before the first attempt and after a suspension, Recovering after an attempt that ended."""
    last = attempts.newest(context.status)
    fresh = last is None or last.reason == Reason.SUSPENDED_BY_USER
    return Phase.PENDING if fresh else Phase.RECOVERING


def _start(context: PassContext) -> Decision:
    """Start the next attempt. It is stored before its objects are created, so that no number is used twice."""
    observed = context.observed
    nodes = elasticity.next_size(context.status, context.spec)
    status = attempts.with_new_attempt(context.status, nodes, context.now, observed.job.metadata.generation)
    attempt = status.attempts[-1]
    to_create = builders.gang(observed, attempt, context.settings.trainer_image)
    cleared = (*cleanup.remove_leftovers(observed, context.status.attempt), *growth.remove_placeholders(context))
    notice = Notice(
        Reason.PODS_STARTING,
        messages.PODS_STARTING.format(attempt=attempt.number, running=0, nodes=attempt.nodes),
    )
    starting = status.model_copy(update={"phase": Phase.STARTING})
    return Decision(starting, notice, (*cleared, *to_create), context.settings.poll)
