"""`make bench-step` in small: each kind of candidate makes a step; and the cost of `recipe: auto`."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys

import pytest

from benchmarks.bench.candidates import NOMINAL_BATCH, Bench, Pair
from distill_api.spec.recipe import AUTO
from distill_trainer.process.telemetry.phases import Phases
from tests.support.machine.python import ROOT
from tests.support.models import ALONE

PAIR = Pair("yolo26n.yaml", "yolo26s.yaml", imgsz=64, batch=NOMINAL_BATCH // 2)


@pytest.mark.parametrize("kind", ["plain", "distilled", "auto", "ultralytics"])
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


def test_the_cost_of_the_recipe_follows_from_its_step() -> None:
    command = ["-m", "benchmarks.bench.recipe", "--imgsz", "64", "--batch", str(NOMINAL_BATCH // 2), "--rounds", "1"]
    shown = subprocess.run(
        [sys.executable, *command], cwd=ROOT, env=os.environ, capture_output=True, text=True, check=True
    )
    step, training = (float(ratio) for ratio in re.findall(r"/ plain: ([\d.]+)", shown.stdout))
    until = AUTO["distillation"]["until"]["fraction"]
    assert training == pytest.approx(1 + until * (step - 1), abs=0.001)
