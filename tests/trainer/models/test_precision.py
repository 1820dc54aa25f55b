"""Number formats: what auto stands for, by measurement, and that a run keeps it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from distill_trainer.models.precision import DTYPES, Precision, choose_formats, teacher_format
from distill_trainer.models.speed import BUDGET_SECONDS, computes, seconds_by_format
from tests.support.models import CPU, job_spec

AUTO = job_spec(teacher={"model": "teacher.pt"})


def takes(full: float, narrow: float) -> Any:
    """A machine on which the convolutions take so many seconds in fp32 and in its 16-bit format."""
    return lambda *_: [full, narrow]


def measures_nothing(*_: Any) -> Sequence[float]:
    raise AssertionError("nothing is to be measured")


@pytest.mark.parametrize(
    ("full", "narrow", "expected"),
    [
        (2.0, 1.0, "bf16"),
        (1.26, 1.0, "bf16"),
        (1.24, 1.0, "fp32"),
        (1.0, 3.0, "fp32"),
        (1.0, float("inf"), "fp32"),
    ],
)
def test_the_teacher_is_bf16_where_that_is_clearly_faster(full: float, narrow: float, expected: str) -> None:
    formats = choose_formats(AUTO, CPU, measure=takes(full, narrow))
    assert (formats.teacher, formats.teacher_dtype) == (expected, DTYPES[expected])
    assert formats.student == "fp32"
    assert formats.auto == {"training.amp": "fp32", "teacher.precision": expected}


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_the_narrow_format_of_a_gpu_is_bf16_where_it_has_it(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], expected: str
) -> None:
    device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    fast = choose_formats(AUTO, device, measure=takes(2.0, 1.0))
    assert (fast.student, fast.teacher) == (expected, expected)
    assert choose_formats(AUTO, device, measure=takes(1.0, 1.0)).teacher == "fp32"


@pytest.mark.parametrize("asked", DTYPES)
def test_a_format_that_is_asked_for_is_taken_and_nothing_is_measured(asked: str) -> None:
    spec = job_spec(
        teacher={"model": "teacher.pt", "precision": asked}, training={"batch": 4, "imgsz": 64, "amp": asked}
    )
    kept = {"training.amp": "fp32", "teacher.precision": "fp32"}
    formats = choose_formats(spec, CPU, kept, measures_nothing)
    assert (formats.student, formats.teacher, formats.auto) == (asked, asked, {})


def test_a_job_without_a_teacher_measures_nothing() -> None:
    assert choose_formats(job_spec(teacher=None), CPU, None, measures_nothing).auto == {"training.amp": "fp32"}


@pytest.mark.parametrize("first", ["fp32", "bf16"])
def test_a_resumed_run_computes_as_it_began_on_whatever_machine(first: str, caplog: pytest.LogCaptureFixture) -> None:
    kept = {"training.amp": "bf16", "teacher.precision": first}
    with caplog.at_level("INFO"):
        formats = choose_formats(AUTO, CPU, kept, measures_nothing)
    assert (formats.student, formats.teacher, formats.auto) == ("bf16", first, kept)
    assert f"teacher.precision auto stands for {first}, as when the run began" in caplog.text


def test_a_format_that_this_machine_cannot_compute_is_chosen_anew_and_told(caplog: pytest.LogCaptureFixture) -> None:
    kept = {"training.amp": "fp32", "teacher.precision": "fp6"}
    formats = choose_formats(AUTO, CPU, kept, takes(2.0, 1.0))
    assert formats.auto == {"training.amp": "fp32", "teacher.precision": "bf16"}
    assert "teacher.precision auto stood for fp6 until now, which this machine cannot compute" in caplog.text


def test_what_a_device_cannot_compute_is_found_by_trying() -> None:
    assert all(computes(CPU, dtype) for dtype in (torch.float32, torch.bfloat16))
    assert not computes(CPU, torch.float8_e4m3fn)
    full, never = seconds_by_format(CPU, [torch.float32, torch.float8_e4m3fn])
    assert 0 < full < never == float("inf")


def test_the_measurement_is_short_and_leaves_randomness_and_threads_alone() -> None:
    state, threads, began = torch.get_rng_state(), torch.get_num_threads(), time.thread_time()
    assert teacher_format(CPU) in ("fp32", "bf16")
    assert time.thread_time() - began < 2 * BUDGET_SECONDS + 0.5
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_fp32_is_without_autocast_and_only_fp16_scales_the_loss() -> None:
    scales = {name: Precision.of(name, CPU).scaler().is_enabled() for name in DTYPES}
    assert scales == {"fp32": False, "bf16": False, "fp16": True}
    assert Precision.of("fp32", CPU).dtype is None
