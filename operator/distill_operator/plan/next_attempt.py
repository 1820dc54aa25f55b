"""The rules while no attempt is open: the job is finished, waits, or starts its next attempt."""

import math

from distill_api.constants import Outcome, Phase
from distill_api.reason_facts import Wait
from distill_api.reasons import Reason
from distill_operator import builders
from distill_operator.policies.capacity import claims, elasticity, growth, queue, starting
from distill_operator.policies.lifetime import deadlines, template
from distill_operator.policies.recovery import bad_nodes, budgets, cleanup, decision, node_lost, progress_guard
from distill_operator.types import attempts, clocks, messages
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
        return _finish(context, Phase.SUCCEEDED, Notice(last.reason or Reason.COMPLETED, last.message or ""))
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
        deadlines.exceeded(context.spec.active_deadline_seconds, context.status.active_since, context.now)
        or budgets.exceeded(context.status, recovery)
        or progress_guard.exceeded(context.status, recovery)
        or starting.exceeded(context.status)
    )


def _finish(context: PassContext, phase: Phase, notice: Notice) -> Decision:
    """End the job, once nothing of it can live: a Job that a queue took nodes from was left for the next attempt, which
    there will not be, and a request that arrived late may have made a Job of an earlier one.
    """
    left = _leftover_pods(context, _phase(context), nodes=0) if _may_live(context) else None
    if left is not None:
        return left
    progress = context.status.progress
    if progress is not None:  # a finished job has no ETA
        progress = progress.model_copy(update={"eta": None, "eta_seconds": None})
    ended = {"finished_at": context.now, "next_attempt_at": None, "progress": progress}
    status = context.in_phase(phase).model_copy(update=ended)
    return Decision(status, notice, wake_after=0.0)


def _may_live(context: PassContext) -> bool:
    """Whether a process of the job may run, or be started by one of its Jobs."""
    observed, newest = context.observed, context.status.attempt
    live = any(pod.live and pod.attempt > 0 for pod in observed.pods)
    return live or bool(cleanup.active_jobs(observed, newest) or queue.misfits(observed, newest + 1, nodes=0))


def _suspended(context: PassContext) -> Decision:
    leftovers = _leftover_pods(context, context.status.phase, nodes=0)
    if leftovers is not None:
        return leftovers
    notice = Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDED)
    cleared = (
        *cleanup.remove_leftovers(context.observed, context.status.attempt),
        *growth.remove_placeholders(context),
    )
    return Decision(context.in_phase(Phase.SUSPENDED), notice, cleared)


def _waiting(context: PassContext) -> Decision | None:
    """Why the next attempt cannot start yet, or never: claims, leftover pods, the spec itself, back-off."""
    phase = _phase(context)
    observed, status = context.observed, context.status
    if observed.claims is None:
        return _requeue(context, phase)
    problem = claims.problem(context.spec, observed.name, observed.namespace, observed.claims)
    committed = attempts.committed_step(status)
    lost = claims.checkpoints_lost(observed, committed)
    if problem is None and lost is not None:
        return Decision(context.in_phase(phase), lost, wake_after=CLAIM_WAKE_SECONDS, waits=True, invalid=lost)
    if problem is not None and problem.reason.facts.wait == Wait.UNLIMITED:
        return Decision(context.in_phase(phase), problem, wake_after=CLAIM_WAKE_SECONDS, waits=True)
    if problem is not None:
        limit = math.inf if committed else context.settings.claim_wait  # what was trained is worth the wait
        left = claims.seconds_to_wait(status.waiting, problem, limit, context.now)
        if left <= 0 or problem.reason.facts.wait == Wait.NONE:
            return _finish(context, Phase.FAILED, problem)
        wake = min(left, CLAIM_WAKE_SECONDS)
        return Decision(context.in_phase(phase), problem, wake_after=wake, waits=True, invalid=problem)
    leftovers = _leftover_pods(context, phase, _nodes(context))
    if leftovers is not None:
        return leftovers
    if (mistake := template.refused(context.spec) or _not_understood(context) or _awaits_change(context)) is not None:
        cleared = cleanup.remove_leftovers(observed, status.attempt)
        return Decision(context.in_phase(phase), mistake, cleared, waits=True, invalid=mistake)
    if status.next_attempt_at is not None and context.now < status.next_attempt_at:
        last = attempts.newest(status)
        message = messages.BACKING_OFF.format(
            attempt=status.attempt,
            reason=last.reason if last else None,
            at=clocks.time_of_day(status.next_attempt_at),
        )
        if status.restarts_without_progress > 1:
            message += messages.NOTHING_COMMITTED.format(count=status.restarts_without_progress)
        left = (status.next_attempt_at - context.now).total_seconds()
        return Decision(
            context.in_phase(phase),
            Notice(Reason.BACKING_OFF, message),
            cleanup.remove_leftovers(observed, status.attempt),
            left,
        )
    return None


def _not_understood(context: PassContext) -> Notice | None:
    """Why this version of the operator must not start the job: it would train something else than was asked for."""
    fields = ", ".join(context.observed.unknown_fields)
    return Notice(Reason.NOT_UNDERSTOOD, messages.FIELDS_UNKNOWN.format(fields=fields)) if fields else None


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


def _leftover_pods(context: PassContext, phase: Phase, nodes: int) -> Decision | None:
    """Wait for pods of earlier attempts and jobs that have not ended, and for Jobs that may still create some. `nodes`
    are those of the next attempt, 0 if there is none for now.
    """
    observed, newest = context.observed, context.status.attempt
    misfits = queue.misfits(observed, newest + 1, nodes)
    late = ", ".join(job.name for job in (*cleanup.active_jobs(observed, newest), *misfits))
    kept = newest + 1 if queue.reserved(observed, newest + 1, nodes) is not None else None
    live = tuple(pod for pod in observed.live_pods if pod.attempt != kept)
    if not live and not late:
        return None
    names = ", ".join(pod.name for pod in live)
    timeout = context.spec.recovery.node_lost_timeout_seconds
    text = messages.LEFTOVER_PODS.format(pods=names) if names else messages.LATE_JOBS.format(jobs=late)
    forced = context.settings.forced_pod_deletion
    blocked = node_lost.blocking(live, timeout, context.now, forced=forced)
    notice = blocked or Notice(Reason.PODS_TERMINATING, text)
    lost = node_lost.removals(live, timeout, context.now, forced=forced)
    actions = (
        *cleanup.remove_leftovers(observed, newest),
        *cleanup.delete_jobs(misfits),
        *cleanup.remove_owners(observed, lost),
        *cleanup.remove_orphans(observed, forced=forced),
        *lost,
    )
    left = node_lost.seconds_left(live, timeout, context.now)
    wake = min(left or LEFTOVERS_WAKE_SECONDS, LEFTOVERS_WAKE_SECONDS)
    return Decision(context.in_phase(phase), notice, actions, wake, waits=True)


def _nodes(context: PassContext) -> int:
    return elasticity.next_size(context.status, context.spec)


def _phase(context: PassContext) -> Phase:
    """Pending before the first attempt and after a suspension, Recovering after an attempt that ended."""
    last = attempts.newest(context.status)
    fresh = last is None or last.reason == Reason.SUSPENDED_BY_USER
    return Phase.PENDING if fresh else Phase.RECOVERING


def _start(context: PassContext) -> Decision:
    """Start the next attempt. It is stored before its objects are created, so that no number is used twice."""
    observed = context.observed
    nodes = _nodes(context)
    status = attempts.with_new_attempt(context.status, nodes, context.now, observed.job.metadata.generation)
    attempt = status.attempts[-1]
    kept = queue.reserved(observed, attempt.number, nodes)
    avoids = bad_nodes.names(status) if kept is None else kept.avoids
    uid = kept.uid if kept is not None else None  # at once, so that the Job is the attempt's however it goes on
    attempt = attempt.model_copy(update={"avoids": list(avoids) or None, "job_uid": uid})
    lines = decision.of_start(context.status, attempt, context.spec.nodes, kept=kept is not None)
    attempt = attempt.model_copy(update={"decision": lines or None})
    status = attempts.with_newest(status, attempt)
    to_create = builders.gang(observed, attempt, context.settings) if kept is None else ()
    cleared = (*cleanup.remove_leftovers(observed, context.status.attempt), *growth.remove_placeholders(context))
    notice = Notice(
        Reason.PODS_STARTING,
        messages.PODS_STARTING.format(attempt=attempt.number, running=0, nodes=attempt.nodes),
    )
    recipe = attempts.recipe(context.status, context.spec)
    starting = status.model_copy(update={"phase": Phase.STARTING, "recipe": recipe})
    return Decision(starting, notice, (*cleared, *to_create), context.settings.poll)
