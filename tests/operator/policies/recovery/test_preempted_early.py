"""A job that is preempted again and again before its first commit: it waits longer each time, and never fails."""

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.plan.plan import make_plan
from distill_operator.policies.recovery import progress_guard
from tests.support.operator.samples import SETTINGS, at, attempt, closed, job, observed, status


def test_twenty_preemptions_before_the_first_commit_end_nothing() -> None:
    current, waits = DistillJobStatus(), []
    now = 0.0
    for number in range(1, 21):
        started = make_plan(observed(job(current)), at(now), SETTINGS).status
        assert started is not None
        assert (started.attempt, started.phase) == (number, Phase.STARTING)
        preempted = started.attempts[-1].model_copy(update={"reason": Reason.PREEMPTED, "ended_at": at(now + 30)})
        ended = started.model_copy(update={"attempts": [*started.attempts[:-1], preempted]})
        after = make_plan(observed(job(ended)), at(now + 30), SETTINGS).status
        assert after is not None
        assert (after.failures, after.preemptions, after.failures_without_progress) == (0, number, 0)
        if after.next_attempt_at is not None:
            waits.append((after.next_attempt_at - at(now + 30)).total_seconds())
            (told,) = [condition for condition in after.conditions if condition.type == "Running"]
            assert f"{number} attempts in a row committed no new step" in told.message
            now = (after.next_attempt_at - at(0)).total_seconds()
            current = after
        else:
            now, current = now + 30, ended
    assert waits[:5] == [10.0, 20.0, 40.0, 80.0, 160.0]
    assert set(waits[5:]) == {SETTINGS.backoff_cap}


def test_disruptions_between_failures_neither_count_nor_absolve() -> None:
    one = progress_guard.counted(status(attempt()), attempt(), Reason.TRAINER_ERROR)
    two = progress_guard.counted(one, closed(), Reason.PREEMPTED)
    three = progress_guard.counted(two, attempt(), Reason.TRAINER_ERROR)
    assert (three.failures_without_progress, three.restarts_without_progress) == (2, 3)
    moved = progress_guard.counted(three, attempt(committed_step=5, resumed_from_step=0), Reason.TRAINER_ERROR)
    assert (moved.failures_without_progress, moved.restarts_without_progress) == (0, 0)
