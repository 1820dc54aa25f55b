"""Who notices, and when, that a rank no longer moves."""

import json
import subprocess
import sys
from typing import Any

import pytest

from distill_trainer.process.liveness import flight_recorder
from distill_trainer.process.liveness.flight_recorder import Position
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import LEAVING_SECONDS, RENDEZVOUS, Stall, Watchdog
from tests.support.machine.clock import Clock
from tests.support.machine.python import environment


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


@pytest.mark.parametrize(
    ("entries", "completed", "told"),
    [
        ([], "-1", None),
        ([entry(0, "started")], "-1", Position(number=1, name="all_reduce", active=True)),
        (
            [entry(4, "scheduled"), entry(3, "started"), entry(2, "completed")],
            "3",
            Position(number=4, name="all_reduce", active=True),
        ),
        (
            [entry(3, "completed", "nccl:broadcast"), entry(2, "completed")],
            "4",
            Position(number=4, name="broadcast", active=False),
        ),
        ([], "9", Position(number=9, name="collective", active=False)),
    ],
)
def test_a_ranks_position_is_its_oldest_active_or_newest_completed(
    entries: list[dict[str, Any]], completed: str, told: Position | None
) -> None:
    trace = {"entries": entries, "pg_status": {"0": {"last_completed_collective": completed}}}
    assert flight_recorder.position_of(trace) == told


OWN_RECORDER = """
import json, torch, torch.distributed as dist
from torch._C import _distributed_c10d
from distill_trainer.process.liveness.flight_recorder import position_of
dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
for _ in range(3):
    dist.all_reduce(torch.ones(1))
dist.barrier()
trace = json.loads(_distributed_c10d._dump_fr_trace_json(includeCollectives=True, onlyActive=False))
while trace["pg_status"]["0"]["last_completed_collective"] != "4":  # another thread retires it
    trace = json.loads(_distributed_c10d._dump_fr_trace_json(includeCollectives=True, onlyActive=False))
print(position_of(trace).model_dump_json())
"""


def test_the_recorder_of_a_group_of_gloo_tells_the_newest_completed() -> None:
    """Its trace has the form of NCCL's."""
    given = environment(**flight_recorder.VARIABLES)
    told = subprocess.run(
        [sys.executable, "-c", OWN_RECORDER], env=given, capture_output=True, text=True, timeout=120, check=True
    )
    position = Position.model_validate_json(told.stdout)
    assert (position.number, position.active) == (4, False)
    assert position.name in ("barrier", "all_reduce")


def at(number: int, active: bool, name: str = "all_reduce") -> Position:
    return Position(number=number, name=name, active=active)


@pytest.mark.parametrize(
    ("positions", "told"),
    [
        (
            {0: at(41, True), 1: at(41, True), 2: at(41, True), 3: at(40, False)},
            "rank 3 has completed all_reduce 40 and is in none, ranks 0, 1, 2 are in all_reduce 41",
        ),
        ({0: at(7, True), 1: at(7, True, "broadcast")}, "rank 0 is in all_reduce 7, rank 1 is in broadcast 7"),
        ({5: at(7, True), 4: at(7, True)}, "ranks 4, 5 are in all_reduce 7"),
    ],
)
def test_ranks_are_told_by_how_far_they_have_come(positions: dict[int, Position], told: str) -> None:
    assert flight_recorder.describe(positions) == told


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
