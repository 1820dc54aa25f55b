"""Compares the speed of the training loader with Ultralytics' loader, in interleaved runs with the same settings.

    python -m benchmarks.bench.data [--imgsz 128] [--batch 16] [--workers 2] [--steps 60] [--rounds 5]

Prints each loader's median images/s and the median of the rounds' ratios (ours / theirs); writes build/bench/data.json.
The clock starts after the workers' first batches, so start-up is not measured. With --workers 0 the clock is the
process's CPU time, which hardly depends on the load of the machine.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import torch
from ultralytics.data import build_dataloader, build_yolo_dataset

from benchmarks import ROOT
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, Shards, TrainData, load_dataset, train
from distill_trainer.data.arguments import data_arguments

WARM_UP = 12
"""Batches before the clock starts: more than the workers prefetch before the first one is read."""


def rate(batches: Iterable[Any], steps: int, batch: int, clock: Callable[[], float]) -> float:
    """Images per second over `steps` batches after the first WARM_UP ones."""
    iterator = iter(batches)
    for _ in islice(iterator, WARM_UP):
        pass
    started = clock()
    for _ in islice(iterator, steps):
        pass
    return steps * batch / (clock() - started)


@contextmanager
def our_batches(info: DatasetInfo, training: Training, args: argparse.Namespace) -> Iterator[Iterable[Any]]:
    """This project's loader for one rank."""
    data = TrainData(info, training, imgsz=args.imgsz, stride=32, shards=Shards(1, (0,)), device=torch.device("cpu"))
    with closing(data.batches(0, args.steps + 3 * WARM_UP)) as batches:
        yield batches


@contextmanager
def their_batches(info: DatasetInfo, training: Training, args: argparse.Namespace) -> Iterator[Iterable[Any]]:
    """Ultralytics' loader over as many epochs as needed; it keeps its workers."""
    arguments = data_arguments(training, args.task, args.imgsz)
    images = str(Path(info.train.images[0]).parent)
    dataset = build_yolo_dataset(arguments, images, args.batch, info.as_ultralytics())
    with closing(build_dataloader(dataset, args.batch, args.workers, device="cpu")) as loader:
        yield chain.from_iterable(repeat(loader))


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--task", default="detect")
    args = parser.parse_args()

    from digits.generate import generate

    train.available_cpus = lambda: max(1, args.workers)  # both loaders use args.workers workers
    clock = time.perf_counter if args.workers else time.process_time
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        generate(root, args.task, {"train": args.images, "val": 1}, args.imgsz, seed=0)
        info = load_dataset(root / "digits.yaml", root, args.task)
        training = Training(imgsz=args.imgsz, batch=args.batch, workers=args.workers)
        for number in range(args.rounds):
            runs = [
                (ours, lambda: our_batches(info, training, args)),
                (theirs, lambda: their_batches(info, training, args)),
            ]
            for rates, open_loader in runs if number % 2 == 0 else reversed(runs):  # neither always goes first
                with open_loader() as batches:
                    rates.append(rate(batches, args.steps, args.batch, clock))
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    report = {
        "settings": vars(args),
        "ours_images_per_second": statistics.median(ours),
        "ultralytics_images_per_second": statistics.median(theirs),
        "ratio": statistics.median(ratios),
        "ratios": ratios,
    }
    file = ROOT / "build" / "bench" / "data.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")
    print(
        f"ours {statistics.median(ours):.0f} images/s, Ultralytics {statistics.median(theirs):.0f},"
        f" ratio {report['ratio']:.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f})"
    )


if __name__ == "__main__":
    main()
