"""How fast: steps against Ultralytics', the loader by its workers, and how long a checkpoint stops training."""

from __future__ import annotations

import statistics
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from benchmarks.bench import step as bench
from benchmarks.bench.candidates import DEVICE, GPU_PAIRS, NOMINAL_BATCH, Bench, Pair
from benchmarks.bench.loader import rate
from benchmarks.gpucheck.findings import Findings, Place
from benchmarks.gpucheck.steps import alone
from distill_trainer.models.precision import teacher_format
from distill_trainer.process.machine.cpus import available_cpus

EXACT = ("distilled fp32", "ultralytics fp32")
"""Candidates of the exact profile alone, on GPUs."""
KINDS = ("plain", "distilled", "ultralytics-plain", "ultralytics")
"""Those of each profile."""
RATIOS = {
    "plain / Ultralytics plain": ("plain", "ultralytics-plain"),
    "distilled / Ultralytics": ("distilled", "ultralytics"),
    "distilled / plain": ("distilled", "plain"),
}
SAVES = 5


def steps(place: Place, found: Findings) -> None:
    """Steps at 640 px against Ultralytics', plain and distilled, in the exact and the fast profile; and peak memory."""
    pair = GPU_PAIRS["n-s"] if place.cuda else Pair("yolo26n.yaml", "yolo26s.yaml", 32, NOMINAL_BATCH)
    found.figure("pair", pair.title)
    teacher = teacher_format(DEVICE)
    found.figure("teacher", teacher)
    formats = [place.timed + profile for profile in place.profiles]
    names = (*(EXACT if place.cuda else ()), *(f"{kind} {format_}" for format_ in formats for kind in KINDS))
    samples = bench.measure(pair, names, 3 if place.cuda else 1, teacher)
    for name, rounds in samples.items():
        found.figure(f"{name}: ms a step", 1000 * statistics.median(one["seconds"] for one in rounds))
        found.figure(f"{name}: peak MiB", statistics.median(one["peak_mib"] for one in rounds))
    ratios = {"distilled / Ultralytics, fp32": EXACT} if place.cuda else {}
    for format_ in formats:
        ratios |= {f"{title}, {format_}": (f"{a} {format_}", f"{b} {format_}") for title, (a, b) in RATIOS.items()}
    best = bench.best(samples, "distilled"), bench.best(samples, "ultralytics")
    ratios[f"best / best ({best[0]}, {best[1]})"] = best
    for title, names in ratios.items():
        median = statistics.median(bench.ratio(samples, *names))
        found.figure(title, median)
        if place.cuda and title.startswith("best"):
            found.expect(median <= 1, f"a distilled step takes {median:.2f} times as long as Ultralytics'")


def loader(place: Place, found: Findings) -> None:
    """Images/s of the loader with 0, 1, 2, 4 … workers, mosaic and all, and what a GPU takes."""
    from digits.generate import generate
    from distill_api.spec.training import Training
    from distill_trainer.data import Shards, TrainData, train
    from tests.support.models import load_dataset

    imgsz, images, batches, most = (640, 64, 12, 16) if place.cuda else (64, 16, 3, 1)
    generate(place.folder, "detect", {"train": images, "val": 1}, imgsz, seed=0)
    info = load_dataset(place.folder / "digits.yaml", place.folder, "detect")
    cpus, batch = available_cpus(), 16
    for workers in [count for count in (0, 1, 2, 4, 8, 16) if count <= min(cpus, most)]:
        training = Training(imgsz=imgsz, batch=batch, workers=workers)
        train.available_cpus = lambda count=workers: max(1, count)  # type: ignore[assignment,misc]
        data = TrainData(info, training, imgsz=imgsz, stride=32, shards=Shards(1, (0,)), device=DEVICE)
        with closing(data.batches(0, batches + 40)) as loaded:
            found.figure(f"{workers} workers: images/s", rate(loaded, batches, batch, time.perf_counter))
    pair = GPU_PAIRS["n-s"] if place.cuda else Pair("yolo26n.yaml", "yolo26s.yaml", imgsz, batch)
    run = Bench(pair, alone(), compiled=False, teacher_dtype=torch.bfloat16).candidate("distilled", "bf16")
    run(2)
    place.synchronize()
    began, count = time.perf_counter(), 20 if place.cuda else 1
    run(count)
    place.synchronize()
    found.figure("the device trains: images/s", count * pair.batch / (time.perf_counter() - began))


def checkpoint(place: Place, found: Findings) -> None:
    """How long a checkpoint stops training, and how long its commit takes, beside torch.save of the same state."""
    from distill_trainer.checkpoint.checkpointer import Checkpointer

    size = "m" if place.cuda else "n"
    state = Bench(Pair(f"yolo26{size}.yaml", "yolo26s.yaml", 64, 4), alone(), compiled=False).state()
    commits: list[float] = []
    nothing: Any = lambda *_: None  # noqa: E731
    events: Any = SimpleNamespace(
        checkpoint_committed=lambda _step, _at, seconds: commits.append(seconds),
        checkpoint_stalled=nothing, checkpoint_failed=nothing, checkpoint_fell_back=nothing,
    )  # fmt: skip
    folder = place.folder / "checkpoints"
    checkpointer = Checkpointer(folder, uid="uid", attempt=1, keep=2, is_writer=True, events=events)
    stalls = []
    for number in range(1, SAVES + 1):
        place.synchronize()
        stalls.append(checkpointer.snapshot(state.collect(), number))
        checkpointer.wait()
    checkpointer.close()
    plain = [_plain_save(state.collect(), place.folder / "state.pt") for _ in range(SAVES)]
    found.figure("MB", (folder / f"step-{SAVES}" / "tensors.bin").stat().st_size / 1e6)
    found.figure("first stall, ms", 1000 * stalls[0])
    found.figure("stall, ms", 1000 * statistics.median(stalls[1:]))
    found.figure("commit in the background, ms", 1000 * statistics.median(commits))
    found.figure("torch.save, ms", 1000 * statistics.median(plain))
    if place.cuda:
        found.expect(statistics.median(stalls[1:]) < min(plain), "a snapshot stops training as long as torch.save")


def _plain_save(state: dict[str, Any], file: Path) -> float:
    began = time.perf_counter()
    torch.save(state, file)
    return time.perf_counter() - began
