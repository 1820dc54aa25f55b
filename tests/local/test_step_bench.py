"""`make bench-step` in small: each kind of candidate makes a step; and the cost of `recipe: auto`."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch

from benchmarks.bench.candidates import NOMINAL_BATCH, ULTRALYTICS_KINDS, Bench, Pair
from benchmarks.bench.driven import ProgressBar
from distill_api.spec.recipe import AUTO
from distill_trainer.training.device.preprocess import Preprocess
from distill_trainer.training.device.results import Pending
from distill_trainer.training.step import Step
from tests.support.machine.python import ROOT
from tests.support.models import ALONE

PAIR = Pair("yolo26n.yaml", "yolo26s.yaml", imgsz=64, batch=NOMINAL_BATCH // 2)


@pytest.mark.parametrize("kind", ["plain", "distilled", "auto", "ultralytics", "ultralytics-plain"])
def test_a_candidate_makes_a_step(kind: str) -> None:
    seconds = Bench(PAIR, ALONE, compiled=False).candidate(kind, "fp32")(1).phases
    assert all(math.isfinite(value) and value >= 0 for value in seconds.values())
    assert ("teacher" in seconds) is (kind not in ULTRALYTICS_KINDS)
    assert seconds["backward"] > 0


def test_results_are_read_as_late_as_in_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    for kind, name in ((Step, "run"), (Pending, "read"), (Preprocess, "__call__")):
        original = getattr(kind, name)

        def noted(*given: Any, original: Any = original, name: str = name) -> Any:
            done.append(name)
            return original(*given)

        monkeypatch.setattr(kind, name, noted)
    pair = replace(PAIR, imgsz=32, batch=2)
    late, at_once = (
        Bench(pair, ALONE, compiled=False, late=late).candidate("distilled", "fp32") for late in (True, False)
    )
    losses = late(2).losses + late(1).losses
    upload = "__call__"
    assert [name for name in done if name != upload] == ["run", "run", "read", "read", "run", "read"]
    assert done[-2:] == [upload, "read"], "the next batch is uploaded before a result is read"
    done.clear()
    assert losses == at_once(3).losses
    assert [name for name in done if name != upload] == ["run", "read"] * 3
    assert done[-1] == "read"


def test_ultralytics_losses_are_read_as_its_loop_does() -> None:
    bar = ProgressBar()
    assert bar.update({"box": torch.tensor(1.0), "cls": torch.tensor(4.0)}).split() == ["1", "4"]
    assert bar.update({"box": torch.tensor(2.0), "cls": torch.tensor(4.0)}).split() == ["1.5", "4"]


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
