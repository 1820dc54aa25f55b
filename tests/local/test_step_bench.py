"""`make bench-step` in small: each kind of candidate makes a step."""

from __future__ import annotations

import math

import pytest

from benchmarks.bench.candidates import NOMINAL_BATCH, Bench, Pair
from distill_trainer.process.telemetry.phases import Phases
from tests.support.models import ALONE

PAIR = Pair("yolo26n.yaml", "yolo26s.yaml", imgsz=64, batch=NOMINAL_BATCH // 2)


@pytest.mark.parametrize("kind", ["plain", "distilled", "ultralytics"])
def test_a_candidate_makes_a_step(kind: str) -> None:
    phases = Phases()
    Bench(PAIR, ALONE, compiled=False).candidate(kind, "fp32")(0, phases)
    seconds = phases.reset()
    assert all(math.isfinite(value) and value >= 0 for value in seconds.values())
    assert ("teacher" in seconds) is (kind != "ultralytics")
    assert seconds["backward"] > 0


def test_the_teachers_part_of_the_arithmetic_is_counted() -> None:
    work = Bench(PAIR, ALONE, compiled=False).gigaflops()
    assert 0.5 < work["teacher"] / work["student"] < 2
