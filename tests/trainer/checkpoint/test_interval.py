"""How often is committed: Daly's optimum from what was measured, and what was asked for otherwise."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_trainer.checkpoint.checkpointer import CommitCost
from distill_trainer.checkpoint.interval import (
    INITIAL_SECONDS,
    MAX_SECONDS,
    MIN_SECONDS,
    History,
    auto_interval,
    daly_interval,
)
from distill_trainer.training.saving.commits import commit_interval

costs = st.floats(1e-4, 100)
betweens = st.floats(60, 1e6)


def overhead(interval: float, cost: float, between: float) -> float:
    """Daly's expected wall time per second of work, without the restart, which no interval changes."""
    return between / interval * (math.exp((interval + cost) / between) - 1)


@given(cost=costs, between=betweens, factor=st.floats(0.2, 5))
def test_no_other_interval_is_better(cost: float, between: float, factor: float) -> None:
    best = daly_interval(cost, between)
    assert overhead(best, cost, between) <= overhead(max(best * factor, 1e-3), cost, between) * (1 + 1e-3)


def test_a_commit_that_costs_more_than_a_disruption_is_hardly_ever_made() -> None:
    assert daly_interval(500, 100) == 100


@pytest.mark.parametrize(
    ("cost", "history", "seconds"),
    [
        (None, History(0, 0.0), INITIAL_SECONDS),
        (0.1, History(0, 0.0), 26.8),  # one disruption an hour is believed before anything is seen
        (0.1, History(0, 36000.0), 89.0),  # ten quiet hours
        (0.1, History(29, 3600.0), 6.9),  # one in four minutes
        (0.0001, History(29, 3600.0), MIN_SECONDS),
        (60.0, History(0, 1e7), MAX_SECONDS),
    ],
)
def test_the_interval_follows_what_was_measured(cost: float | None, history: History, seconds: float) -> None:
    assert auto_interval(cost, history) == pytest.approx(seconds, abs=0.1)


@given(cost=costs, disruptions=st.integers(0, 100), seconds=st.floats(0, 1e6))
def test_more_disruptions_never_make_commits_rarer(cost: float, disruptions: int, seconds: float) -> None:
    calm, rough = History(disruptions, seconds), History(disruptions + 1, seconds)
    assert MIN_SECONDS <= auto_interval(cost, rough) <= auto_interval(cost, calm) <= MAX_SECONDS


def asked(interval: Any, cost: CommitCost | None, cpus: int = 2, attempt: int = 1) -> tuple[float, list[float]]:
    told: list[float] = []
    checkpointer: Any = SimpleNamespace(cost=cost)
    progress: Any = SimpleNamespace(seconds=3600.0)
    seconds = commit_interval(interval, checkpointer, progress, attempt=attempt, cpus=cpus, on_change=told.append)
    assert seconds() == seconds()
    return seconds(), told


def test_what_is_asked_for_is_kept_and_changes_are_told_once() -> None:
    assert asked(45, CommitCost(10.0, 10.0)) == (45.0, [45.0])


def test_the_writers_processor_time_counts_where_the_training_needs_it() -> None:
    on_accelerators, _ = asked("auto", CommitCost(0.1, 2.0), cpus=0)
    on_two_cpus, told = asked("auto", CommitCost(0.1, 2.0), cpus=2)
    assert on_accelerators == auto_interval(0.1, History(0, 3600.0))
    assert on_two_cpus == auto_interval(1.1, History(0, 3600.0))
    assert told == [on_two_cpus]


def test_every_attempt_before_this_one_was_a_disruption() -> None:
    assert asked("auto", CommitCost(0.1, 0.0), attempt=5)[0] == auto_interval(0.1, History(4, 3600.0))
