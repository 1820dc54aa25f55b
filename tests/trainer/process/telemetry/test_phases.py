"""Times by phase: the host's, or those of a device, which are known later."""

import time
from typing import Any

import pytest

from distill_trainer.process.telemetry.phases import Phases


def test_phases_add_up_and_begin_anew() -> None:
    started: list[str] = []
    phases = Phases(started.append)
    for phase in ("data", "forward", "data"):
        with phases.measure(phase):
            time.sleep(0.01)
    seconds = phases.reset()
    assert started == ["data", "forward", "data"]
    assert seconds.keys() == {"data", "forward"}
    assert seconds["data"] > seconds["forward"] >= 0.01
    assert phases.reset() == {}


def test_a_phase_that_fails_is_measured() -> None:
    phases = Phases()
    with pytest.raises(ZeroDivisionError), phases.measure("forward"):
        _ = 1 / 0
    assert phases.reset().keys() == {"forward"}


class Device:
    """A clock whose marks get their times later, stream by stream."""

    def __init__(self) -> None:
        self.marks: list[list[Any]] = []

    def mark(self, stream: Any | None) -> list[Any]:
        self.marks.append([stream, None])
        return self.marks[-1]

    def seconds(self, start: list[Any], end: list[Any]) -> float:
        return float(end[1] - start[1])

    def run(self) -> None:
        for moment, mark in enumerate(self.marks):
            mark[1] = moment


def test_times_of_a_device_are_read_when_it_is_done() -> None:
    device = Device()
    phases = Phases(clock=device)
    with phases.measure("forward"), phases.measure("teacher", "side"):
        pass
    times = phases.take()
    with phases.measure("forward"):
        pass
    device.run()
    assert times.read() == {"teacher": 1, "forward": 3}
    assert [stream for stream, _ in device.marks] == [None, "side", "side", None, None, None]
    assert phases.reset() == {"forward": 1}
