"""Every check of `make gpu-check` to its end on CPUs, as the program runs it: in small, in a process of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from benchmarks.gpucheck.runner import BUDGETS, run_one

ELSEWHERE = {"environment", "checkpoint"}
"""In test_gpu_check.py."""
ONLY_ON_GPUS = {"overlap": "on CPUs nothing overlaps"}
FIGURES = {
    "collectives": "gloo, 2 ranks: ms a distilled step",
    "parity": "losses apart, all steps",
    "resume": "resumed from step",
    "ends": "a rank that hangs",
    "formats": "bf16: losses apart from fp32",
    "overlap": "distilled step / one after the other",
    "steps": "plain / Ultralytics plain, fp32",
    "loader": "the device trains: images/s",
    "compile": "losses apart",
}
"""By check, one that it finds at its end."""


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture
def one_cpu() -> Iterator[None]:
    """For this process and what it starts. Beside other tests, two threads would spend most of their time waiting for
    each other."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(before)})
    yield
    os.sched_setaffinity(0, before)


def check(name: str, seconds: float) -> None:
    row = run_one(name, "cpu", seconds)
    why = [ONLY_ON_GPUS[name]] if name in ONLY_ON_GPUS else []
    assert (row.verdict, row.why) == ("NOT RUN" if why else "PASS", why)
    assert FIGURES[name] in row.figures


def test_every_check_is_run_in_small() -> None:
    assert FIGURES.keys() | ELSEWHERE == BUDGETS.keys()


@pytest.mark.parametrize("name", ["collectives", "parity", "formats", "overlap", "loader"])
def test_a_check_comes_to_its_end(name: str) -> None:
    check(name, 580)


@pytest.mark.usefixtures("one_cpu")
def test_the_check_of_steps_comes_to_its_end() -> None:
    check("steps", 580)


def test_the_check_of_compiling_comes_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the compiler, which takes minutes; test_compiling.py uses it in small."""
    monkeypatch.setenv("TORCH_COMPILE_DISABLE", "1")
    check("compile", 580)


@pytest.mark.alone
@pytest.mark.parametrize("name", ["resume", "ends"])
def test_a_check_of_whole_runs_comes_to_its_end(name: str) -> None:
    check(name, 580)
