"""Where a rank's time goes: each second counts as one kind, whatever the rank does and whenever it is asked."""

from typing import get_args

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from distill_api.pod.report import RankSeconds, State
from distill_trainer.process.telemetry.status import RankStatus
from distill_trainer.process.telemetry.time_accounting import KINDS, MAX_STEP_RATIO, TimeAccounting


class World:
    """A rank with a clock that moves when told, and checkpoints that take some of its time."""

    def __init__(self) -> None:
        self.now, self.stalled, self.steps = 1000.0, 0.0, 0
        self.status = RankStatus(
            job="tiny", uid="u", attempt=1, rank=0, world_size=1, images_per_second=lambda: None,
            checkpoint_stalls=lambda: self.stalled, clock=lambda: self.now,
        )  # fmt: skip

    def spend(self, seconds: float, stalled: float = 0.0) -> None:
        self.now += seconds
        self.stalled += stalled

    def step(self, seconds: float, stalled: float = 0.0) -> None:
        self.spend(seconds, stalled)
        self.steps += 1
        self.status.update(steps_this_attempt=self.steps)

    @property
    def seconds(self) -> RankSeconds:
        told = self.status.read().seconds
        assert told is not None
        return told


def total(seconds: RankSeconds) -> float:
    return seconds.starting + seconds.training + seconds.checkpoint + seconds.validation


def test_an_attempt_from_start_to_stop() -> None:
    world = World()
    world.spend(8)
    world.status.update(state="validating")  # the teacher's own score
    world.spend(3)
    world.status.update(state="training")
    world.step(4)
    for _ in range(5):
        world.step(2, stalled=0.5)
    world.status.update(state="validating")
    world.spend(6)
    world.status.update(state="training")
    world.step(3)
    world.status.update(state="stopping")
    world.spend(1, stalled=1)
    assert world.seconds == RankSeconds(starting=12, training=7.5 + 3, checkpoint=2.5 + 1, validation=9)


def test_a_step_is_told_before_it_is_finished_but_a_hang_is_not() -> None:
    world = World()
    world.status.update(state="training")
    world.step(1)
    world.step(2)
    world.spend(1.5)
    assert world.seconds.training == 3.5
    world.spend(600)
    assert world.seconds.training == 2 + MAX_STEP_RATIO * 2
    world.status.update(state="stopping")  # as the watchdog does
    assert world.seconds.training == 2 + MAX_STEP_RATIO * 2


def test_a_step_that_takes_long_but_ends_was_no_hang() -> None:
    world = World()
    world.status.update(state="training")
    for seconds in (1, 1, 60):
        world.step(seconds)
    assert world.seconds == RankSeconds(starting=1, training=61)


STATES = tuple(state for state in KINDS if state != "done")


@example([("step", 0, 0), ("step", 1, 0), ("look", 2, 0), ("look", 1, 1)])
@given(st.lists(st.tuples(st.sampled_from(["step", "look", *STATES]), st.integers(0, 50), st.integers(0, 50))))
def test_no_second_is_told_twice_and_none_is_taken_back(story: list[tuple[str, int, int]]) -> None:
    now, stalled = 0.0, 0.0
    accounting = TimeAccounting(lambda: stalled, lambda: now)
    before = accounting.seconds()
    for what, seconds, stall in story:
        now += seconds
        stalled += min(stall, seconds)
        if what == "step":
            accounting.step()
        elif what != "look":
            accounting.enter(what)  # type: ignore[arg-type]
        told = accounting.seconds()
        assert total(told) <= now + 1e-6
        assert all(getattr(told, kind) >= getattr(before, kind) - 1e-6 for kind in RankSeconds.model_fields)
        before = told


def test_all_of_a_sound_life_is_told() -> None:
    world = World()
    world.spend(5)
    world.status.update(state="training")
    for _ in range(20):
        world.step(0.5, stalled=0.1)
    world.status.update(state="committing")
    world.spend(2)
    assert total(world.seconds) == pytest.approx(world.now - 1000.0)


def test_the_time_in_every_state_is_of_some_kind() -> None:
    assert set(KINDS) == set(get_args(State))
