"""Measures what dataCache saves when the data volume is slow: seconds for an epoch of the training loader.

    python -m benchmarks.bench.data_cache [--images 400] [--workers 1] [--rounds 3]

Reads of the data volume are slowed down in this process and its workers, by a latency for each file and a bandwidth for
each stream; copies are read at this machine's own speed. Each round has one epoch without copies, one that makes them,
and one that finds them, on each volume. Prints the medians of the rounds' ratios to the epoch without copies; writes
build/bench/data_cache.json.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import ROOT
from benchmarks.bench.loader import generate
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, Shards, TrainData, node_cache
from tests.support.models import load_dataset

VOLUMES = {"local": (0.0, float("inf")), "network": (0.003, 100e6), "object storage": (0.03, 30e6)}
"""Latency of a file in seconds, and bytes per second of a stream."""
FULL = 2**40


@contextmanager
def slow(root: Path, latency: float, bandwidth: float) -> Iterator[None]:
    """Files below `root` are read more slowly, by workers that are forked meanwhile, too."""

    def slowed(read: Callable[..., Any]) -> Callable[..., Any]:
        def call(file: Any, *arguments: Any) -> Any:
            found = read(file, *arguments)
            if str(file).startswith(str(root)):
                time.sleep(latency + os.path.getsize(file) / bandwidth)
            return found

        return call

    readers = ((np, "fromfile"), (node_cache, "read"))  # Ultralytics' and the cache's
    real = [getattr(module, name) for module, name in readers]
    try:
        for (module, name), read in zip(readers, real, strict=True):
            setattr(module, name, slowed(read))
        yield
    finally:
        for (module, name), read in zip(readers, real, strict=True):
            setattr(module, name, read)


def epoch_seconds(info: DatasetInfo, workers: int) -> float:
    """Seconds to load an epoch, with the loader's start."""
    training = Training(epochs=1, batch=16, imgsz=640, workers=workers, close_mosaic=0)
    data = TrainData(
        info, training, imgsz=640, stride=32, shards=Shards(1, (0,)), device=torch.device("cpu")
    )  # fmt: skip
    begun = time.perf_counter()
    for _ in data.batches(0, data.steps_per_epoch):
        pass
    return time.perf_counter() - begun


def measure(root: Path, workers: int) -> dict[str, dict[str, float]]:
    """Seconds of the epochs of one round, by volume."""
    info = load_dataset(root / "data.yaml", root, "detect")
    found = {}
    for name, (latency, bandwidth) in VOLUMES.items():
        folder = Path(tempfile.mkdtemp(prefix="copies-"))
        try:
            with slow(root, latency, bandwidth):
                cached = info.with_cache(folder, FULL)
                arms = {"without": info, "making": cached, "found": cached}
                found[name] = {arm: epoch_seconds(data, workers) for arm, data in arms.items()}
        finally:
            shutil.rmtree(folder)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, arguments.images)
        rounds = [measure(root, arguments.workers) for _ in range(arguments.rounds)]
    for name in VOLUMES:
        seconds = statistics.median(found[name]["without"] for found in rounds)
        ratios = {
            arm: statistics.median(found[name][arm] / found[name]["without"] for found in rounds)
            for arm in ("making", "found")
        }
        shown = ", ".join(f"{arm} copies × {ratio:.2f}" for arm, ratio in ratios.items())
        print(f"{name:<15} without {arguments.images / seconds:5.0f} images/s; {shown}")
    target = ROOT / "build/bench/data_cache.json"
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(rounds, indent=1))


if __name__ == "__main__":
    main()
