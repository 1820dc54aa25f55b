"""Where a job's time goes: six kinds, each second in exactly one of them, over any number of attempts."""

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distill_api.constants import Outcome, Phase
from distill_api.pod.report import RankSeconds, TrainerStatus
from distill_api.reasons import Reason
from distill_api.status import KEPT_ATTEMPTS, Attempt, DistillJobStatus, Spent
from distill_operator.status import goodput, progress
from distill_operator.types.observed import Observed, PodFacts
from tests.support.operator.samples import answer, at, attempt, closed, ended, job, observed, pod, report, status


def spent(**seconds: float) -> Spent:
    return Spent(**{f"{kind}_seconds": value for kind, value in seconds.items()})


RAN = {"scheduled_at": at(10), "running_at": at(20)}
TOLD = RankSeconds(starting=9, training=50, checkpoint=2, validation=8)


@pytest.mark.parametrize(
    ("of", "life", "told", "share", "expected"),
    [
        (attempt(), 30, None, 0.0, spent(waiting_for_capacity=30)),
        (attempt(scheduled_at=at(10)), 30, None, 0.0, spent(waiting_for_capacity=10, restart=20)),
        (attempt(**RAN), 80, TOLD, 0.0, spent(waiting_for_capacity=10, restart=10, productive=50, checkpoint_stall=2,
                                              validation=8)),
        (attempt(**RAN), 80, TOLD, 0.2, spent(waiting_for_capacity=10, restart=10, productive=40, lost_work=10,
                                              checkpoint_stall=2, validation=8)),
        (attempt(**RAN), 40, TOLD, 0.0, spent(waiting_for_capacity=10, productive=20, checkpoint_stall=2,
                                              validation=8)),
        (attempt(**RAN, spent=spent(productive=50, lost_work=4)), 80, RankSeconds(training=1), 0.0,
         spent(waiting_for_capacity=10, restart=16, productive=54)),
        (attempt(**RAN, spent=spent(productive=40, validation=4), spent_before=spent(productive=30, validation=4)), 80,
         RankSeconds(training=20, validation=1), 0.0,
         spent(waiting_for_capacity=10, restart=15, productive=50, validation=5)),
        (closed(1, Reason.SCHEDULING_TIMEOUT), 330, None, 0.0, spent(waiting_for_capacity=330)),
        (closed(1, Reason.POD_REJECTED, ended_at=at(5)), 30, None, 0.0, spent(waiting_for_capacity=5, restart=25)),
    ],
)  # fmt: skip
def test_the_kinds_of_an_attempts_life(
    of: Attempt, life: float, told: RankSeconds | None, share: float, expected: Spent
) -> None:
    assert goodput.spent(of, life, told, share) == expected


SECONDS = st.floats(0, 1e5)
MOMENTS = st.none() | st.integers(0, 10**5).map(at)


LIVES = SECONDS.map(lambda seconds: round(seconds, 1))
ANSWERS = st.builds(RankSeconds, training=SECONDS, checkpoint=SECONDS, validation=SECONDS)


@given(LIVES, ANSWERS, st.floats(0, 1), MOMENTS, MOMENTS, st.sampled_from([None, *Reason]))
def test_the_kinds_of_any_life_sum_to_it(
    life: float, told: RankSeconds, share: float, placed: datetime | None, ended: datetime | None, reason: Reason | None
) -> None:
    whole = goodput.spent(attempt(scheduled_at=placed, ended_at=ended, reason=reason), life, told, share)
    assert goodput.total(whole) == pytest.approx(life, abs=0.11)
    assert all(getattr(whole, kind) >= 0 for kind in goodput.KINDS)


@pytest.mark.parametrize(
    ("fields", "lost", "share"),
    [
        ({"step": 50, "resumed_from_step": 0}, 10, 0.2),
        ({"step": 50, "resumed_from_step": 40}, 5, 0.5),
        ({"step": 50, "resumed_from_step": 40}, 20, 1.0),
        ({"step": 50, "resumed_from_step": 40}, -3, 0.0),
        ({}, 10, 0.0),
    ],
)
def test_the_share_that_was_lost(fields: dict[str, Any], lost: int, share: float) -> None:
    assert goodput.lost_share(attempt(**fields), lost) == share


def account(
    old: DistillJobStatus, new: DistillJobStatus, seconds: float, *pods: PodFacts, **seen: Any
) -> DistillJobStatus:
    return goodput.accounted(old, new, observed(job(old), *pods, **seen), at(seconds))


def telling(step: int, seconds: RankSeconds | None = TOLD, number: int = 1, **fields: Any) -> TrainerStatus:
    return answer(step, number=number, **fields).model_copy(update={"seconds": seconds})


def kinds(of: DistillJobStatus) -> Spent:
    assert of.goodput is not None
    return Spent(**{kind: getattr(of.goodput, kind) for kind in goodput.KINDS})


def test_a_preempted_job_with_lost_work_and_a_wait_for_its_nodes() -> None:
    begun = account(status(), status(attempt()), 0)
    assert kinds(begun) == spent()
    running = status(attempt(**RAN, step=10, resumed_from_step=0, committed_step=8), phase=Phase.RUNNING)
    running = account(begun, running, 79, trainer=telling(10))
    assert kinds(running) == spent(waiting_for_capacity=10, restart=9, productive=50, checkpoint_stall=2, validation=8)

    over = running.attempts[0].model_copy(
        update={"reason": Reason.PREEMPTED, "ended_at": at(80), "outcome": Outcome.DISRUPTED}
    )
    second = attempt(2, started_at=at(100))
    both = account(running, status(over, second, phase=Phase.STARTING), 100)
    assert kinds(both) == spent(
        waiting_for_capacity=10, restart=30, productive=40, lost_work=10, checkpoint_stall=2, validation=8
    ), "two of ten steps were not committed, as far as was known"

    resumed = both.attempts[1].model_copy(
        update={"scheduled_at": at(400), "resumed_from_step": 9, "running_at": at(405)}
    )
    later = account(both, status(both.attempts[0], resumed).model_copy(update={"goodput": both.goodput}), 410,
                    trainer=telling(9, RankSeconds(training=2), 2))  # fmt: skip
    assert kinds(later) == spent(
        waiting_for_capacity=310, restart=38, productive=47, lost_work=5, checkpoint_stall=2, validation=8
    ), "one of ten steps was lost, as the next attempt has told"
    assert later.goodput is not None
    assert later.goodput.ratio == round(47 / 410, 4)


def test_what_was_committed_during_the_grace_period_is_not_lost() -> None:
    ending = attempt(**RAN, step=10, resumed_from_step=0, committed_step=8, reason=Reason.PREEMPTED, ended_at=at(80))
    told = account(status(), status(ending), 82, trainer=telling(10))
    assert kinds(told).lost_work_seconds == 0, "pods that still live may still commit"
    over = told.attempts[0].model_copy(update={"outcome": Outcome.DISRUPTED, "committed_step": 10})
    assert kinds(account(told, status(over), 90)).lost_work_seconds == 0


def test_the_last_report_of_rank_0_counts_when_the_next_attempt_opens() -> None:
    before = account(status(), status(attempt(**RAN)), 40, trainer=telling(5, RankSeconds(training=10)))
    over = closed(1, **RAN, spent=before.attempts[0].spent, ended_at=at(79))
    last = report("stopped", Reason.STOPPED, seconds=TOLD.model_dump())
    both = account(before, status(over, attempt(2, started_at=at(90))), 90, pod(0, **ended(79, 143, last)))
    assert kinds(both).productive_seconds == 50


def test_a_training_that_does_not_answer_is_accounted_for_later() -> None:
    running = account(status(), status(attempt(**RAN)), 79, trainer=telling(5))
    silent = account(running, running, 95)
    assert silent.goodput == running.goodput
    more = RankSeconds(training=70, checkpoint=3, validation=8)
    assert kinds(account(silent, silent, 100, trainer=telling(6, more))).productive_seconds == 70


def test_the_clock_stands_while_the_job_is_suspended() -> None:
    over = closed(1, Reason.SUSPENDED_BY_USER, **RAN, ended_at=at(80), outcome=Outcome.WITHDRAWN)
    before = account(status(), status(attempt(**RAN)), 80, trainer=telling(5))
    stopped = status(over.model_copy(update={"spent": before.attempts[0].spent}), phase=Phase.SUSPENDED)
    stopped = account(before, stopped, 85)
    assert goodput.total(kinds(stopped)) == 85
    assert account(stopped, stopped, 5000).goodput == stopped.goodput
    pending = account(stopped, stopped.model_copy(update={"phase": Phase.PENDING}), 9000)
    assert goodput.total(kinds(pending)) == 85
    waiting = account(pending, pending, 9007)
    assert goodput.total(kinds(waiting)) == 92
    again = status(*waiting.attempts, attempt(2, started_at=at(9010)), goodput=waiting.goodput)
    assert goodput.total(kinds(account(waiting, again, 9010))) == 95


def test_a_trainer_that_does_not_measure_is_taken_to_train_all_the_time() -> None:
    told = account(status(), status(attempt(**RAN)), 79, trainer=telling(5, None))
    assert kinds(told) == spent(waiting_for_capacity=10, restart=10, productive=59)


def test_attempts_that_are_no_longer_listed_still_count() -> None:
    story = status()
    for number in range(1, KEPT_ATTEMPTS + 10):
        now = number * 100
        over = {"outcome": Outcome.DISRUPTED, "reason": Reason.PREEMPTED}
        new = [a.model_copy(update=over) for a in story.attempts]
        opened = status(*[*new, attempt(number, started_at=at(now))][-KEPT_ATTEMPTS:], goodput=story.goodput)
        story = account(story, opened.model_copy(update={"attempt": number}), now)
        assert goodput.total(kinds(story)) == now - 100
    assert len(story.attempts) == KEPT_ATTEMPTS


def test_an_operator_that_is_updated_begins_with_the_running_attempt() -> None:
    old = status(closed(1), attempt(2, started_at=at(500), **{k: at(510) for k in RAN}))
    told = account(old, old, 600, trainer=telling(5, RankSeconds(training=80), 2))
    assert kinds(told) == spent(waiting_for_capacity=10, restart=10, productive=80)


def test_time_alone_is_written_once_a_minute() -> None:
    waiting = account(status(), status(attempt(), phase=Phase.STARTING), 0)
    soon, later = (account(waiting, waiting, seconds) for seconds in (59, 60))
    assert not progress.worth_writing(waiting, soon, 5)
    assert progress.worth_writing(waiting, later, 5)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["wait", "place", "train", "silence", "end", "next"]), st.integers(1, 500)),
                max_size=40))  # fmt: skip
def test_over_any_story_the_sum_is_the_wall_time_and_nothing_is_taken_back(story: list[tuple[str, int]]) -> None:
    """Only lost work moves, out of productive, when an attempt is closed or the next one has resumed."""
    now, trained = 0, 0.0
    current = account(status(), status(attempt()), 0)
    for what, seconds in story:
        now += seconds
        newest = current.attempts[-1]
        seen: dict[str, Any] = {}
        update: dict[str, Any] = {}
        if what == "place" and newest.scheduled_at is None and newest.reason is None:
            update = {"scheduled_at": at(now)}
        elif what == "train" and newest.scheduled_at is not None and newest.reason is None:
            trained += seconds
            step = (newest.step or 0) + seconds
            update = {"running_at": newest.running_at or at(now), "step": step, "resumed_from_step": 0}
            seen["trainer"] = telling(step, RankSeconds(training=trained), newest.number)
        elif what == "end":
            update = {"reason": newest.reason or Reason.PREEMPTED, "ended_at": newest.ended_at or at(now)}
        listed = [*current.attempts[:-1], newest.model_copy(update=update)]
        if what == "next" and newest.reason is not None:
            listed[-1] = listed[-1].model_copy(update={"outcome": Outcome.DISRUPTED, "committed_step": 0})
            listed.append(attempt(newest.number + 1, started_at=at(now)))
            trained = 0.0
        changed = status(*listed[-KEPT_ATTEMPTS:], goodput=current.goodput).model_copy(
            update={"attempt": listed[-1].number}
        )
        before, current = current, account(current, changed, now, **seen)
        assert current.goodput is not None
        until = (current.goodput.accounted_until - at(0)).total_seconds()
        assert goodput.total(kinds(current)) == pytest.approx(until, abs=0.1)
        was, now_is = kinds(before), kinds(current)
        assert now_is.productive_seconds + now_is.lost_work_seconds >= was.productive_seconds + was.lost_work_seconds
        assert now_is.waiting_for_capacity_seconds >= was.waiting_for_capacity_seconds


def test_pods_that_find_their_nodes_end_the_wait() -> None:
    waiting = status(attempt())
    seen: Observed = observed(job(waiting), pod(0, scheduled_at=at(5)), pod(1, scheduled_at=None))
    assert progress.folded(waiting, seen, at(6)).attempts[0].scheduled_at is None
    seen = observed(job(waiting), pod(0, scheduled_at=at(5)), pod(1, scheduled_at=at(9)))
    assert progress.folded(waiting, seen, at(10)).attempts[0].scheduled_at == at(9)
