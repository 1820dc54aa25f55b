"""Who notices, and when, that a rank no longer moves."""

import json
from typing import Any

import pytest

from distill_trainer.process.liveness import flight_recorder
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import LEAVING_SECONDS, RENDEZVOUS, Stall, Watchdog
from tests.support.machine.clock import Clock


@pytest.mark.parametrize(
    ("stall_timeout", "collective", "watchdog"),
    [(600, 300, 480), (100, 60, 80), (12, 8.4, 9.6), (1, 0.7, 0.8), (7200, 3600, 5760)],
)
def test_a_collective_gives_up_before_the_watchdog_and_the_operator(
    stall_timeout: int, collective: float, watchdog: float
) -> None:
    waits = timeouts(stall_timeout)
    assert (waits.collective, waits.watchdog, waits.operator) == pytest.approx((collective, watchdog, stall_timeout))
    assert waits.collective < waits.watchdog < waits.operator


@pytest.mark.parametrize(
    ("still", "stop_before", "stall"),
    [
        (59, None, None),
        (60, None, Stall("backward", 60, False)),
        (9, 9, None),
        (30, 9, None),
        (30, 10, Stall("backward", 30, True)),
    ],
)
def test_a_stall_is_noticed_after_its_timeout_and_sooner_during_a_stop(
    still: float, stop_before: float | None, stall: Stall | None
) -> None:
    clock, stop = Clock(), False
    watchdog = Watchdog(
        timeout=60, stopping_timeout=10, stop_requested=lambda: stop, on_stall=lambda _: None, clock=clock
    )
    watchdog.beat("backward")
    if stop_before is not None:
        clock.now += still - stop_before
        stop = True
        assert watchdog.check() is None
        clock.now += stop_before
    else:
        clock.now += still
    assert watchdog.check() == stall


def test_a_rank_that_is_asked_to_stop_does_not_wait_for_others_to_come() -> None:
    clock = Clock()
    watchdog = Watchdog(timeout=60, stopping_timeout=10, stop_requested=lambda: True, on_stall=print, clock=clock)
    watchdog.beat(RENDEZVOUS)
    assert watchdog.check() is None
    clock.now += 1
    assert watchdog.check() == Stall(RENDEZVOUS, 1, True)


def test_a_rank_that_waits_ends_before_the_one_that_it_waits_for() -> None:
    clock, waiting = Clock(), "all_reduce 7, state started"
    watchdog = Watchdog(
        timeout=60, waiting_timeout=40, stopping_timeout=10, stop_requested=lambda: False, on_stall=print, clock=clock
    )
    watchdog.beat("backward")
    watchdog.waits_for = lambda: waiting
    clock.now += 39
    assert watchdog.check() is None
    clock.now += 1
    assert watchdog.check() == Stall("backward", 40, False, waiting)
    watchdog.waits_for = lambda: None
    assert watchdog.check() is None, "it computes, or is stuck itself"


def test_a_rank_whose_sibling_has_failed_leaves_when_it_is_asked_to() -> None:
    clock, asked = Clock(), False
    watchdog = Watchdog(
        timeout=60,
        stopping_timeout=10,
        stop_requested=lambda: asked,
        sibling_failed=lambda: True,
        on_stall=print,
        clock=clock,
    )
    watchdog.beat("backward")
    clock.now += 9
    assert watchdog.check() is None, "its own error may come yet"
    asked = True
    assert watchdog.check() is None
    clock.now += LEAVING_SECONDS
    assert watchdog.check() == Stall("backward", 9 + LEAVING_SECONDS, True)


def entry(number: int, state: str, name: str = "nccl:all_reduce") -> dict[str, Any]:
    return {"record_id": number, "collective_seq_id": number + 1, "profiling_name": name, "state": state}


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([], None),
        ([entry(1, "completed")], None),
        ([entry(3, "scheduled"), entry(2, "started"), entry(1, "completed")], "all_reduce 3, state started"),
        ([entry(5, "scheduled", "nccl:_broadcast_oop")], "_broadcast_oop 6, state scheduled"),
        ([{"state": "started"}], "collective ?, state started"),
    ],
)
def test_the_oldest_collective_that_has_not_completed_is_named(entries: list[dict[str, Any]], said: str | None) -> None:
    assert flight_recorder.oldest_active({"version": "2.10", "entries": entries}) == said


def test_a_recorder_that_cannot_be_read_does_not_keep_a_stuck_rank(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(flight_recorder, "_dump", lambda: "no JSON")
    assert flight_recorder.waits_for() is None
    assert "flight recorder cannot be read" in caplog.text


def test_torchs_own_recorder_is_understood() -> None:
    """Of this process, which has no group of NCCL."""
    assert flight_recorder.waits_for() is None
    assert "entries" not in json.loads(flight_recorder._dump())
