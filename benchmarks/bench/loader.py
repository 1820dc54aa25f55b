"""Compares the training loader with Ultralytics' loader: images per second of one core, in interleaved runs.

    python -m benchmarks.bench.loader [--imgsz 640] [--batch 16] [--workers 1] [--steps 20] [--rounds 5] [--profile]

The images are JPEGs of 640 × 480 pixels, with about as many bytes and objects as COCO's. A second is one of CPU time of
this process and its workers, which hardly depends on the load of the machine; start-up is not measured. Prints the
medians and the median of the rounds' ratios (ours / theirs), with and without mosaic; writes build/bench/loader.json.
"""

from __future__ import annotations

import argparse
import cProfile
import json
import logging
import multiprocessing
import os
import pstats
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
import yaml
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.utils import LOGGER

from benchmarks import ROOT
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, Shards, TrainData, train
from distill_trainer.data.datasets.arguments import data_arguments
from tests.support.models import load_dataset

WARM_UP = 6
"""Batches before the clock starts: more than a worker loads before the first one is read."""
CLASSES = 80
SIDES = (640, 480)


def photograph(random: np.random.RandomState, width: int, height: int) -> Any:
    """Shapes of several sizes and some grain: as a JPEG about as large as a photograph."""
    image = np.full((height, width, 3), 128.0, np.float32)
    for detail, strength in ((8, 60), (32, 40), (128, 25)):
        size = max(2, height * detail // 640), max(2, width * detail // 640)
        shapes = random.randn(*size, 3).astype(np.float32)
        image += strength * cv2.resize(shapes, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = 7 * random.randn(height, width, 1)
    return (image + grain).clip(0, 255).astype(np.uint8)


def generate(root: Path, images: int) -> None:
    """A data set of `images` training images, one in four upright, with 1 to 14 objects each, and one to validate."""
    random = np.random.RandomState(0)
    for number in range(images + 1):
        split = "train" if number < images else "val"
        folders = root / "images" / split, root / "labels" / split
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
        width, height = SIDES if number % 4 else SIDES[::-1]
        jpeg = str(folders[0] / f"{number:06}.jpg")
        cv2.imwrite(jpeg, photograph(random, width, height), [cv2.IMWRITE_JPEG_QUALITY, 90])
        lines = []
        for _ in range(random.randint(1, 15)):
            size = random.uniform(0.03, 0.5, 2)
            box = " ".join(f"{value:.6f}" for value in (*random.uniform(size / 2, 1 - size / 2), *size))
            lines.append(f"{random.randint(CLASSES)} {box}")
        (folders[1] / f"{number:06}.txt").write_text("\n".join(lines))
    splits = {"train": "images/train", "val": "images/val"}
    (root / "data.yaml").write_text(yaml.safe_dump(splits | {"names": [f"class {n}" for n in range(CLASSES)]}))


def cpu_seconds() -> float:
    """CPU time of this process and its children."""
    ticks = 0
    for child in multiprocessing.active_children():
        fields = Path(f"/proc/{child.pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])  # utime and stime, see proc_pid_stat(5)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")


def rate(batches: Iterable[Any], steps: int, batch: int, clock: Callable[[], float] = cpu_seconds) -> float:
    """Images per second of `clock` over `steps` batches after the first WARM_UP ones."""
    iterator = iter(batches)
    for _ in islice(iterator, WARM_UP):
        pass
    started = clock()
    for _ in islice(iterator, steps):
        pass
    return steps * batch / (clock() - started)


@contextmanager
def our_batches(info: DatasetInfo, training: Training, steps: int) -> Iterator[Iterable[Any]]:
    """This project's loader for one rank."""
    shards, device = Shards(1, (0,)), torch.device("cpu")
    data = TrainData(info, training, imgsz=training.imgsz, stride=32, shards=shards, device=device)
    with closing(data.batches(0, steps + 3 * WARM_UP)) as batches:
        yield batches


@contextmanager
def their_batches(info: DatasetInfo, training: Training, _: int) -> Iterator[Iterable[Any]]:
    """Ultralytics' loader over as many epochs as needed; it keeps its workers."""
    arguments = data_arguments(training, "detect", training.imgsz)
    images = str(Path(info.train.images[0]).parent)
    dataset = build_yolo_dataset(arguments, images, training.batch, info.as_ultralytics())
    with closing(build_dataloader(dataset, training.batch, training.workers, device="cpu")) as loader:
        yield chain.from_iterable(repeat(loader))


def compare(info: DatasetInfo, training: Training, steps: int, rounds: int) -> dict[str, Any]:
    """Rates of both loaders, one after the other in each round; neither always goes first."""
    rates: dict[str, list[float]] = {"ours": [], "ultralytics": []}
    loaders = {"ours": our_batches, "ultralytics": their_batches}
    for number in range(rounds):
        for name in sorted(loaders, reverse=number % 2 == 1):
            with loaders[name](info, training, steps) as batches:
                rates[name].append(rate(batches, steps, training.batch))
    ratios = [ours / theirs for ours, theirs in zip(rates["ours"], rates["ultralytics"], strict=True)]
    return {"images_per_cpu_second": rates, "ratios": ratios}


def profile(info: DatasetInfo, training: Training, steps: int) -> None:
    """Print where this project's loader spends its time, without workers."""
    with our_batches(info, training.model_copy(update={"workers": 0}), steps) as batches:
        iterator = iter(batches)
        next(iterator)
        with cProfile.Profile() as found:
            for _ in islice(iterator, steps):
                pass
    pstats.Stats(found).sort_stats("tottime").print_stats(25)


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--profile", action="store_true", help="profile this project's loader instead")
    args = parser.parse_args()

    LOGGER.setLevel(logging.WARNING)
    train.available_cpus = lambda *_: max(1, args.workers)  # both loaders use args.workers workers
    report: dict[str, Any] = {"settings": vars(args)}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, args.images)
        info = load_dataset(root / "data.yaml", root, "detect")
        run = partial(Training, imgsz=args.imgsz, batch=args.batch, workers=args.workers)
        if args.profile:
            return profile(info, run(), args.steps)
        for name, mosaic in (("mosaic", 1.0), ("no mosaic", 0.0)):
            found = report[name] = compare(info, run(mosaic=mosaic), args.steps, args.rounds)
            ours, theirs = (statistics.median(rates) for rates in found["images_per_cpu_second"].values())
            ratios = found["ratios"]
            print(
                f"{name}: ours {ours:.0f} images/s, Ultralytics {theirs:.0f}, ratio {statistics.median(ratios):.2f}"
                f" (rounds {min(ratios):.2f} to {max(ratios):.2f})"
            )
    file = ROOT / "build" / "bench" / "loader.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
