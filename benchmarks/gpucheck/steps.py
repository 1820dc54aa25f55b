"""Training steps on the device: against Ultralytics', in every number format, compiled, and beside the teacher."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.bench.candidates import DEVICE, Bench, Pair
from benchmarks.bench.driven import Run
from benchmarks.gpucheck.findings import Findings, NotRun, Place
from distill_trainer.training.distillation.features import ModelOutput
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.parallel.environment import Environment
from tests.support.models import ALONE, CPU, build, preprocessed, shard_batch, teach
from tests.support.parity import STEPS, TRAINING, ours, ultralytics

FIRST_STEP, ALL_STEPS = 1e-4, 2e-2
"""How far losses in fp32 may be from Ultralytics': rounding alone, which grows from step to step."""
FORMATS = {"bf16": 0.05, "fp16": 0.02}
"""How far the first step's losses may be from those in fp32."""
COMPILED = 1e-2


def alone() -> Environment:
    """This process as the only rank, on the device that is checked."""
    return Environment(**vars(ALONE) | {"device": torch.device(DEVICE.type, 0) if DEVICE.type == "cuda" else CPU})


def parity(place: Place, found: Findings) -> None:
    """Twenty steps in fp32, with SGD, beside those of Ultralytics' own training loop."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    student = build("yolo26n.yaml", **TRAINING, optimizer="SGD")
    teacher = teach(build("yolo26s.yaml", seed=1))
    torch.save({"model": teacher}, place.folder / "teacher.pt")
    device = "0" if place.cuda else "cpu"
    theirs, projector = ultralytics("detect", student, place.folder / "teacher.pt", 16, place.folder, device)
    mine = ours("detect", student, teacher, projector, 16, environment=alone())
    apart = [_apart(our, their) for our, their in zip(mine.losses, theirs.losses, strict=True)]
    found.figure("steps", len(apart))
    found.figure("losses apart, first step", apart[0])
    found.figure("losses apart, all steps", max(apart))
    found.expect(len(apart) == STEPS, f"{len(apart)} of {STEPS} steps were made")
    found.expect(mine.moves == theirs.moves, "the optimizer moved after other steps than Ultralytics'")
    found.expect(apart[0] <= FIRST_STEP, f"the first step's losses differ by {apart[0]:.1e}, more than {FIRST_STEP}")
    found.expect(max(apart) <= ALL_STEPS, f"losses differ by {max(apart):.1e}, more than {ALL_STEPS}")
    weights = max(
        float((mine.weights[name].cpu() - value.cpu()).abs().max() / value.abs().max().clamp_min(1e-6))
        for name, value in theirs.weights.items()
        if value.is_floating_point()
    )
    found.figure("weights apart", weights)


def formats(place: Place, found: Findings) -> None:
    """The student in fp32, bf16 and fp16, with the teacher in bf16 or fp16: losses, and time and memory of a step."""
    pair = _pair(place)
    exact = _first_losses(pair, "fp32", torch.float32, found)
    for name in place.formats:
        tolerance = FORMATS[name]
        narrow = {"bf16": torch.bfloat16, "fp16": torch.float16}[name]
        losses = _first_losses(pair, name, narrow if place.cuda else torch.float32, found)
        apart = _apart(losses, exact)
        found.figure(f"{name}: losses apart from fp32", apart)
        found.expect(apart <= tolerance, f"{name}: the first step's losses differ from fp32's by {apart:.1e}")


def compiled(place: Place, found: Findings) -> None:
    """training.compile: the time until the first step is done, and the losses beside those without."""
    pair = _pair(place)
    plain = _first_losses(pair, "fp32", torch.float32, found)
    run = Bench(pair, alone(), compiled=True).candidate("distilled", "fp32")
    began = time.perf_counter()
    (losses,) = run(1).losses
    place.synchronize()
    found.figure("seconds to the first step", time.perf_counter() - began)
    apart = _apart(losses, plain)
    found.figure("losses apart", apart)
    found.expect(apart <= COMPILED, f"compiled, the first step's losses differ by {apart:.1e}")
    count = 5 if place.cuda else 1
    found.figure("ms a step", 1000 * _seconds(lambda: run(count), place) / count)


def overlap(place: Place, found: Findings) -> None:
    """A distilled step, whose teacher runs beside the student, against the same with the teacher before it."""
    pair, narrow = _pair(place), torch.bfloat16 if place.cuda else torch.float32
    format_ = "bf16" if place.cuda else "fp32"
    bench = Bench(pair, alone(), compiled=False, teacher_dtype=narrow)
    images = preprocessed(shard_batch(pair.batch, imgsz=pair.imgsz))["img"]
    waiting = images.pin_memory() if place.cuda else images
    on_device = images.to(DEVICE)
    teacher = Teacher(teach(build(pair.teacher, seed=1, imgsz=pair.imgsz)), DEVICE, narrow)
    plain, distilled = bench.candidate("plain", format_), bench.candidate("distilled", format_)
    count = 5 if place.cuda else 1
    parts: dict[str, Callable[[], Any]] = {
        "copy of a batch": lambda: [waiting.to(DEVICE, non_blocking=True) for _ in range(count)],
        "teacher": lambda: [teacher.infer(on_device) for _ in range(count)],
        "plain step": lambda: plain(count),
        "distilled step": lambda: distilled(count),
        "distilled step, one after the other": lambda: _one_after_the_other(distilled, count, place),
    }
    seconds: dict[str, list[float]] = {name: [] for name in parts}
    for _ in range(7 if place.cuda else 2):
        for name, part in parts.items():
            seconds[name].append(_seconds(part, place) / count)
    medians = {name: statistics.median(values[1:]) for name, values in seconds.items()}
    for name, value in medians.items():
        found.figure(f"{name}, ms", 1000 * value)
    together, apart = medians["distilled step"], medians["distilled step, one after the other"]
    found.figure("distilled step / (teacher + plain step)", together / (medians["teacher"] + medians["plain step"]))
    found.figure("distilled step / one after the other", together / apart)
    if not place.cuda:
        raise NotRun("on CPUs nothing overlaps")
    found.expect(together < apart, "a step takes no less time than with the teacher before the student")


def _one_after_the_other(run: Run, steps: int, place: Place) -> None:
    infer = Teacher.infer

    def waits(teacher: Teacher, images: torch.Tensor, ready: torch.cuda.Event | None = None) -> ModelOutput:
        place.synchronize()
        output = infer(teacher, images, ready)
        place.synchronize()
        return output

    Teacher.infer = waits  # type: ignore[assignment]
    try:
        run(steps)
    finally:
        Teacher.infer = infer  # type: ignore[method-assign]


def _pair(place: Place) -> Pair:
    return Pair("yolo26n.yaml", "yolo26s.yaml", place.imgsz, place.batch)


def _first_losses(pair: Pair, format_: str, teacher: torch.dtype, found: Findings) -> dict[str, float]:
    """The losses of the first of some steps, all of which must be finite."""
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    run = Bench(pair, alone(), compiled=False, teacher_dtype=teacher).candidate("distilled", format_)
    losses, seconds = [], []
    for _ in range(6 if DEVICE.type == "cuda" else 2):
        began = time.perf_counter()
        losses += run(1).losses
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    found.figure(f"{format_}: ms a step", 1000 * statistics.median(seconds[1:]))
    if DEVICE.type == "cuda":
        found.figure(f"{format_}: peak GiB", torch.cuda.max_memory_allocated() / 2**30)
    finite = all(math.isfinite(value) for one in losses for value in one.values())
    found.expect(finite, f"{format_}: a loss is not finite")
    return losses[0]


def _apart(losses: dict[str, float], others: dict[str, float]) -> float:
    """The largest relative difference."""
    return max(abs(value - others[name]) / max(abs(others[name]), 1e-6) for name, value in losses.items())


def _seconds(run: Callable[[], Any], place: Place) -> float:
    place.synchronize()
    began = time.perf_counter()
    run()
    place.synchronize()
    return time.perf_counter() - began
