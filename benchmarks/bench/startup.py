"""Measures how long the ranks of a node need until their data is ready, and how much memory the labels take.

    python -m benchmarks.bench.startup [--images 118000] [--ranks 1 4] [--rounds 3] [--before REVISION]

Generates a data set of tiny images below build/bench, and removes it at the end. Each round measures, in turn, the
first attempt and the next one, with the full data set and with 128 images, for each number of ranks; and the same with
the code of REVISION (from a git worktree), whose ratio to this code is printed. Every sample is in
build/bench/startup.json.

The clock starts when all ranks have imported everything, and stops when training and validation data can be read;
models are left out. CPU seconds, of the busiest rank and of all, depend less on what else the machine does. Memory is
the sum of all ranks' proportional set sizes (Pss of smaps_rollup) beyond that before the data was opened; with workers,
each rank has one data loader worker, and both have looked at every label.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import cv2
import numpy as np

from benchmarks import ROOT
from distill_local.trainer_process import free_port

SMALL = 128
BUILD = ROOT / "build" / "bench"
RANK = Path(__file__).with_name("startup_rank.py")
PACKAGES = ("crds", "operator", "trainer", "cli", "hack", "examples", "")
BYTES_PER_MB = 10**6


def generate(root: Path, train: int, val: int) -> None:
    """A data set in YOLO format: a few distinct images, and 1 to 14 random boxes on each."""
    rng, pixels = random.Random(0), np.random.default_rng(0)
    pictures = []
    for height, width in ((48, 64), (64, 48), (64, 64)):
        picture = pixels.integers(0, 256, (height // 8, width // 8, 3), np.uint8).repeat(8, 0).repeat(8, 1)
        pictures.append(cv2.imencode(".jpg", picture)[1].tobytes())
    for split, count in (("train", train), ("val", val)):
        images, labels = root / "images" / split, root / "labels" / split
        images.mkdir(parents=True)
        labels.mkdir(parents=True)
        for number in range(count):
            (images / f"{number:012d}.jpg").write_bytes(pictures[number % len(pictures)])
            lines = [
                f"{rng.randrange(80)} {rng.uniform(0.3, 0.7):.6f} {rng.uniform(0.3, 0.7):.6f}"
                f" {rng.uniform(0.05, 0.5):.6f} {rng.uniform(0.05, 0.5):.6f}"
                for _ in range(rng.randint(1, 14))
            ]
            (labels / f"{number:012d}.txt").write_text("\n".join(lines))
    names = "".join(f"  {number}: class {number}\n" for number in range(80))
    (root / "data.yaml").write_text(f"train: images/train\nval: images/val\nnames:\n{names}")


@dataclass(frozen=True)
class Code:
    """A checkout, by the name that the report gives it."""

    name: str
    root: Path

    def attempt(self, data: Path, results: Path, ranks: int) -> dict[str, float]:
        """Start the ranks of a node as a new pod would, with an empty temporary directory; what they measured."""
        with tempfile.TemporaryDirectory(dir=BUILD) as scratch:
            port = str(free_port())
            environment = os.environ | {
                "PYTHONPATH": os.pathsep.join(str(self.root / package) for package in PACKAGES),
                "WORLD_SIZE": str(ranks),
                "LOCAL_WORLD_SIZE": str(ranks),
                "GROUP_RANK": "0",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                "OMP_NUM_THREADS": "1",
                "TMPDIR": scratch,
            }
            processes = [
                subprocess.Popen(
                    [sys.executable, RANK, data, results],
                    env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                    stdout=subprocess.PIPE,
                    cwd=self.root,
                )
                for rank in range(ranks)
            ]
            outputs = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
        assert len({output["digest"] for output in outputs}) == 1
        return {
            "seconds": max(output["seconds"] for output in outputs),
            "cpu_seconds": max(output["cpu"] for output in outputs),
            "node_cpu_seconds": sum(output["cpu"] for output in outputs),
            "rank_mb": max(output["uss"] for output in outputs) / BYTES_PER_MB,
            "node_mb": sum(output["pss"] for output in outputs) / BYTES_PER_MB,
            "workers_mb": sum(output["pss_with_worker"] for output in outputs) / BYTES_PER_MB,
        }


@contextmanager
def worktree(revision: str | None) -> Iterator[list[Code]]:
    """The code of a revision, in a worktree that ends with the context; nothing for None."""
    if revision is None:
        yield []
        return
    folder = Path(tempfile.mkdtemp(dir=BUILD)) / "before"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", folder, revision], cwd=ROOT, check=True)
    try:
        yield [Code("before", folder)]
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)
        shutil.rmtree(folder.parent)


def main() -> None:
    """Run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=118_000)
    parser.add_argument("--val", type=int, default=5_000)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", help="revision to compare with, such as v0.5.0")
    args = parser.parse_args()
    samples: dict[str, list[dict[str, float]]] = {}
    BUILD.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="startup-", dir=BUILD) as folder, worktree(args.before) as before:
        data = {SMALL: Path(folder) / "small", args.images: Path(folder) / "large"}
        for images, root in data.items():
            generate(root, images, min(images, args.val))
        for number in range(args.rounds):
            codes = [*before, Code("now", ROOT)]
            for code, images, ranks in product(codes if number % 2 == 0 else codes[::-1], data, args.ranks):
                with tempfile.TemporaryDirectory(dir=folder) as results:
                    for attempt in ("first", "next"):
                        found = code.attempt(data[images], Path(results), ranks)
                        name = f"{code.name}, {images} images, {ranks} ranks, {attempt}"
                        samples.setdefault(name, []).append(found)
                        print(f"round {number}, {name}: {found}", flush=True)
    (BUILD / "startup.json").write_text(json.dumps({"settings": vars(args), "samples": samples}, indent=2) + "\n")
    report(samples)


def report(samples: dict[str, list[dict[str, float]]]) -> None:
    """Print medians, and the ratios before ÷ now within the rounds."""
    for name, found in samples.items():
        print(f"{name}:", ", ".join(f"{key} {statistics.median(one[key] for one in found):.2f}" for key in found[0]))
        earlier = samples.get(name.replace("now,", "before,", 1))
        if earlier is None or earlier is found:
            continue
        for key in ("seconds", "node_cpu_seconds", "node_mb", "workers_mb"):
            ratios = [then[key] / max(one[key], 0.01) for then, one in zip(earlier, found, strict=True)]
            print(f"    {key}: before ÷ now {statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})")


if __name__ == "__main__":
    main()
