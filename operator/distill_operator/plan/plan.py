"""The decision of a pass: a pure function of the observation and the time. The modules below hold the rules."""

from datetime import datetime

from distill_api.constants import Phase
from distill_api.status import DistillJobStatus, Waiting
from distill_operator.plan import ended, finished, next_attempt, open_attempt
from distill_operator.policies.lifetime import deadlines
from distill_operator.policies.recovery import bad_nodes
from distill_operator.status import conditions, goodput, progress
from distill_operator.status.events import transition_events
from distill_operator.types import attempts
from distill_operator.types.actions import Decision, Plan
from distill_operator.types.observed import Observed
from distill_operator.types.pass_context import PassContext
from distill_operator.types.settings import Settings


def make_plan(observed: Observed, now: datetime, settings: Settings) -> Plan:
    """The status to store, the actions and the events for this job now. Planning again on the result is a no-op."""
    stored = observed.job.status
    if observed.deleting:
        return Plan()
    if stored.over:
        return finished.plan(observed, now) if stored.phase.known else Plan()

    decision = decide(PassContext(observed, progress.folded(stored, observed, now), now, settings))
    status = goodput.accounted(stored, described(decision, observed, now), observed, now)
    wake_after = _before_deadline(decision, observed, now)
    if not progress.worth_writing(stored, status, settings.progress_write):
        return Plan(actions=decision.actions, wake_after=wake_after)
    events = transition_events(stored, status, decision.notice)
    return Plan(status, decision.actions, events, wake_after)


def _before_deadline(decision: Decision, observed: Observed, now: datetime) -> float | None:
    status, spec = decision.status, observed.job.spec
    left = deadlines.seconds_left(spec.active_deadline_seconds, status.active_since, now)
    times = [seconds for seconds in (decision.wake_after, left) if seconds is not None and seconds >= 0]
    return min(times, default=decision.wake_after)


def decide(context: PassContext) -> Decision:
    """Continue or end the open attempt; without one, decide whether the next attempt starts."""
    context = context.with_status(bad_nodes.current(context.status, context.spec.recovery, context.now))
    attempt = attempts.open_attempt(context.status)
    if attempt is None:
        return next_attempt.decide(context)
    context = open_attempt.with_start_problem(context, attempt)
    attempt = context.status.attempts[-1]
    end = open_attempt.end_of(context, attempt)
    if end is None:
        return open_attempt.continue_attempt(context, attempt)
    context = context.with_status(ended.with_reason(context, attempt, end))
    attempt = context.status.attempts[-1]
    if open_attempt.gang_is_alive(context.observed, attempt):
        return open_attempt.terminate(context, attempt)
    return next_attempt.decide(context.with_status(ended.closed(context, attempt)))


def described(decision: Decision, observed: Observed, now: datetime) -> DistillJobStatus:
    """The decided status with what it waits for, conditions and printed columns."""
    status, job = decision.status, observed.job
    pods_matter = status.phase in (Phase.STARTING, Phase.RUNNING)
    running = sum(pod.running for pod in observed.pods_of(status.attempt)) if pods_matter else 0
    return status.model_copy(
        update={
            "observed_generation": job.metadata.generation,
            "waiting": _waiting(job.status.waiting, decision, now),
            "restarts": f"{status.failures}/{status.preemptions}",
            "nodes": f"{running}/{job.spec.nodes}",
            "replicas": running,
            "full_nodes": attempts.full_nodes(status, job.spec) if status.attempt else None,
            "conditions": conditions.derived(
                status, job.spec, job.metadata.generation, decision.notice, decision.invalid, now
            ),
        }
    )


def _waiting(stored: Waiting | None, decision: Decision, now: datetime) -> Waiting | None:
    """What the job waits for by this decision; `since` stays while the reason does."""
    if not decision.waits:
        return None
    notice = decision.notice
    since = stored.since if stored is not None and stored.reason == notice.reason else now
    return Waiting(reason=notice.reason, message=notice.message, since=since)
