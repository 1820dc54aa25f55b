"""The rules while no attempt is open: whether the job is over, must wait, or may start a further attempt."""

from distill_api.constants import PERMANENT, Outcome, Phase, Reason
from distill_operator import builders
from distill_operator.policies.capacity import claims, elasticity, growth
from distill_operator.policies.lifetime import deadlines
from distill_operator.policies.recovery import budgets, cleanup, node_lost, progress_guard
from distill_operator.types import attempts, messages
from distill_operator.types.actions import Decision, Notice
from distill_operator.types.pass_context import Case

STRAYS_WAKE_SECONDS = 10.0
CLAIM_WAKE_SECONDS = 5.0
"""Claims are not watched, so that a missing one is looked for this often."""


def decide(case: Case) -> Decision:
    """The job's next state between two attempts."""
    last = attempts.newest(case.status)
    if last is not None and last.outcome == Outcome.SUCCEEDED:
        return _over(case, Phase.SUCCEEDED, Notice(Reason.COMPLETED, last.message or ""))
    verdict = given_up(case)
    if verdict is not None:
        return _over(case, Phase.FAILED, verdict)
    if case.spec.suspend:
        return _suspended(case)
    return _waiting(case) or _start(case)


def given_up(case: Case) -> Notice | None:
    """Why the job will never be started again."""
    last = attempts.newest(case.status)
    recovery = case.spec.recovery
    if last is not None and last.reason in PERMANENT:
        return Notice(last.reason, last.message or "")
    return (
        deadlines.exceeded(case.spec.active_deadline_seconds, case.status.started_at, case.now)
        or budgets.exceeded(case.status, recovery)
        or progress_guard.exceeded(case.status, recovery)
    )


def _over(case: Case, phase: Phase, notice: Notice) -> Decision:
    progress = case.status.progress
    if progress is not None:  # there is nothing to arrive at any more
        progress = progress.model_copy(update={"eta": None, "eta_seconds": None})
    ended = {"finished_at": case.now, "next_attempt_at": None, "progress": progress}
    status = case.in_phase(phase).model_copy(update=ended)
    return Decision(status, notice, wake_after=0.0)


def _suspended(case: Case) -> Decision:
    strays = _strays(case, case.status.phase)
    if strays is not None:
        return strays
    notice = Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDED)
    cleared = (*cleanup.of_closed(case.observed, case.status.attempt), *growth.cleared(case))
    return Decision(case.in_phase(Phase.SUSPENDED), notice, cleared)


def _waiting(case: Case) -> Decision | None:
    """Why the next attempt may not begin yet: claims, an earlier gang, a back-off."""
    phase = _phase(case)
    observed, status = case.observed, case.status
    if observed.claims is None:
        return _look_again(case, phase)
    problem = claims.problem(case.spec, observed.name, observed.namespace, observed.claims)
    if problem is not None and problem.reason == Reason.NAME_TAKEN:
        return Decision(case.in_phase(phase), problem, wake_after=CLAIM_WAKE_SECONDS)
    if problem is not None:
        left = claims.seconds_to_wait(status, case.settings.claim_wait, case.now)
        if left <= 0 or problem.reason in PERMANENT:
            return _over(case, Phase.FAILED, problem)
        wake = min(left, CLAIM_WAKE_SECONDS)
        return Decision(case.in_phase(phase), problem, wake_after=wake, invalid=problem)
    strays = _strays(case, phase)
    if strays is not None:
        return strays
    if status.next_attempt_at is not None and case.now < status.next_attempt_at:
        last = attempts.newest(status)
        message = messages.BACKING_OFF.format(
            attempt=status.attempt,
            reason=last.reason if last else None,
            at=status.next_attempt_at.strftime("%H:%M:%SZ"),
        )
        left = (status.next_attempt_at - case.now).total_seconds()
        return Decision(
            case.in_phase(phase),
            Notice(Reason.BACKING_OFF, message),
            cleanup.of_closed(observed, status.attempt),
            left,
        )
    return None


def _look_again(case: Case, phase: Phase) -> Decision:
    """The attempt was open when the picture was taken, so that the claims are not in it: the next pass reads them."""
    last = case.status.attempts[-1]
    return Decision(case.in_phase(phase), Notice(last.reason or Reason.DISRUPTED, last.message or ""), wake_after=0.0)


def _strays(case: Case, phase: Phase) -> Decision | None:
    """What of earlier gangs lives, or may come to live."""
    observed, newest = case.observed, case.status.attempt
    late = ", ".join(job.name for job in cleanup.awake(observed, newest))
    if not observed.live_pods and not late:
        return None
    names = ", ".join(pod.name for pod in observed.live_pods)
    timeout = case.spec.recovery.node_lost_timeout_seconds
    text = messages.STRAY_PODS.format(pods=names) if names else messages.LATE_JOBS.format(jobs=late)
    notice = node_lost.blocking(observed.live_pods, timeout, case.now) or Notice(Reason.PODS_TERMINATING, text)
    actions = (
        *cleanup.of_closed(observed, newest),
        *node_lost.removals(observed.live_pods, timeout, case.now),
    )
    left = node_lost.seconds_left(observed.live_pods, timeout, case.now)
    return Decision(case.in_phase(phase), notice, actions, min(left or STRAYS_WAKE_SECONDS, STRAYS_WAKE_SECONDS))


def _phase(case: Case) -> Phase:
    """Pending before the first attempt and after a suspension, Recovering after an attempt that ended."""
    last = attempts.newest(case.status)
    fresh = last is None or last.reason == Reason.SUSPENDED_BY_USER
    return Phase.PENDING if fresh else Phase.RECOVERING


def _start(case: Case) -> Decision:
    """Open the next attempt: it is stored first, so that no number is ever used twice."""
    observed = case.observed
    status = attempts.opened(case.status, elasticity.of_next(case.status, case.spec), case.now)
    attempt = status.attempts[-1]
    to_create = builders.gang(observed, attempt, case.settings.trainer_image)
    cleared = (*cleanup.of_closed(observed, case.status.attempt), *growth.cleared(case))
    notice = Notice(
        Reason.PODS_STARTING,
        messages.PODS_STARTING.format(attempt=attempt.number, running=0, nodes=attempt.nodes),
    )
    starting = status.model_copy(update={"phase": Phase.STARTING})
    return Decision(starting, notice, (*cleared, *to_create), case.settings.poll)
