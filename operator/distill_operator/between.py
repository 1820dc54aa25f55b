"""The rules while no attempt is open: whether the job is over, must wait, or may start a further attempt."""

from distill_api.constants import PERMANENT, Outcome, Phase, Reason
from distill_operator import attempts, budgets, builders, claims, deadlines, messages, progress_guard
from distill_operator.case import Case
from distill_operator.intent import Action, Create, Decision, Delete, Notice

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
    status = case.in_phase(phase).model_copy(update={"finished_at": case.now, "next_attempt_at": None})
    return Decision(status, notice, wake_after=0.0)


def _suspended(case: Case) -> Decision:
    if case.observed.live_pods:
        return _strays(case, case.status.phase)
    notice = Notice(Reason.SUSPENDED_BY_USER, messages.SUSPENDED)
    return Decision(case.in_phase(Phase.SUSPENDED), notice, leftovers(case))


def _waiting(case: Case) -> Decision | None:
    """Why the next attempt may not begin yet: claims, an earlier gang, a back-off."""
    phase = _phase(case)
    observed, status = case.observed, case.status
    problem = claims.problem(case.spec, observed.namespace, observed.claims or ())
    if problem is not None:
        left = claims.seconds_to_wait(status, case.settings.claim_wait, case.now)
        if left <= 0 or problem.reason in PERMANENT:
            return _over(case, Phase.FAILED, problem)
        wake = min(left, CLAIM_WAKE_SECONDS)
        return Decision(case.in_phase(phase), problem, wake_after=wake, invalid=problem)
    if observed.live_pods:
        return _strays(case, phase)
    if status.next_attempt_at is not None and case.now < status.next_attempt_at:
        last = attempts.newest(status)
        message = messages.BACKING_OFF.format(
            attempt=status.attempt,
            reason=last.reason if last else None,
            at=status.next_attempt_at.strftime("%H:%M:%SZ"),
        )
        left = (status.next_attempt_at - case.now).total_seconds()
        return Decision(case.in_phase(phase), Notice(Reason.BACKING_OFF, message), leftovers(case), left)
    return None


def _strays(case: Case, phase: Phase) -> Decision:
    names = ", ".join(pod.name for pod in case.observed.live_pods)
    notice = Notice(Reason.PODS_TERMINATING, messages.STRAY_PODS.format(pods=names))
    return Decision(case.in_phase(phase), notice, leftovers(case), STRAYS_WAKE_SECONDS)


def _phase(case: Case) -> Phase:
    """Pending before the first attempt and after a suspension, Recovering after an attempt that ended."""
    last = attempts.newest(case.status)
    fresh = last is None or last.reason == Reason.SUSPENDED_BY_USER
    return Phase.PENDING if fresh else Phase.RECOVERING


def _start(case: Case) -> Decision:
    """Open the next attempt: it is stored first, so that no number is ever used twice."""
    observed = case.observed
    status = attempts.opened(case.status, case.spec.nodes, case.now)
    attempt = status.attempts[-1]
    missing = claims.missing_from_templates(case.spec, observed.name, observed.claims or ())
    to_create = (
        *(Create(builders.claim(observed, volume)) for volume in missing),
        *builders.gang(observed, attempt, case.settings.trainer_image),
    )
    notice = Notice(
        Reason.PODS_STARTING,
        messages.PODS_STARTING.format(attempt=attempt.number, running=0, nodes=attempt.nodes),
    )
    starting = status.model_copy(update={"phase": Phase.STARTING})
    return Decision(starting, notice, (*leftovers(case), *to_create), case.settings.poll)


def leftovers(case: Case) -> tuple[Action, ...]:
    """What closed attempts leave: their Services, and every Job but the newest, whose pods keep the last logs."""
    observed, newest = case.observed, case.status.attempt
    services = [s for s in observed.services if s.owned and s.attempt <= newest]
    jobs = [j for j in observed.jobs if j.owned and j.attempt < newest and not j.deleting]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in jobs),
    )
