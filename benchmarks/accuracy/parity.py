"""Trains with this trainer and with Ultralytics' own on the same bytes and settings, and compares mAP50-95.

    python -m benchmarks.accuracy.parity [--results DIR] [--seeds 0 1 2] [--optimizers MuSGD AdamW SGD]
                                         [--kinds plain distilled] [--variants NAME …] [--quick]

A variant is this trainer with one of its differences from Ultralytics taken back (docs/deviations.md). Finished runs
are kept in DIR/raw/parity.csv and not run again. Writes the page DIR/parity.md and prints its differences.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.accuracy.lanes import Lanes
from benchmarks.accuracy.plan import TEACHER_SEED, Plan
from benchmarks.accuracy.report.parity import differences, page, table
from benchmarks.accuracy.run import Data, Run

OPTIMIZERS = {"MuSGD": 0.0025, "AdamW": 0.001, "SGD": 0.0025}
"""Initial learning rates, for a student that has learned before."""
KINDS = ("plain", "distilled")
SETTING = Plan("fine-tune-long", "detect", "quick", 1, [0], ["plain"]).run("plain", 0)
"""A short training that goes on from weights that were trained for long: ten epochs from random weights cost as much,
but there a change of the rounding alone, such as another layout in memory, moves mAP50-95 by up to 0.05.
"""
EPOCHS = {"epochs": 4, "close_mosaic": 1, "val": False}
TEACHER = {"epochs": 15, "close_mosaic": 5, "optimizer": "AdamW", "lr0": 0.004}
TINY = Data("digits", "detect", train=32, val=16, imgsz=64, seed=0)

VARIANTS: dict[str, dict[str, Any]] = {
    "mosaic-pool-256": {"switches": ("mosaic-pool-256",)},
    "batch-9": {"training": {"batch": 9}},
    "batch-9+short-last-batch": {"training": {"batch": 9}, "switches": ("short-last-batch",)},
    "ultralytics-data": {"switches": ("ultralytics-data",)},
    "contiguous": {"switches": ("contiguous",)},
    "initial-seed-plus-one": {"switches": ("initial-seed-plus-one",)},
    "teacher-fp32": {"spec": {"teacher": {"precision": "fp32"}}},
    "two-shards": {"spec": {"accelerators": {"perNode": 0, "processesPerNode": 2}}},
    "two-shards-all-statistics": {
        "spec": {"accelerators": {"perNode": 0, "processesPerNode": 2}},
        "switches": ("statistics-of-all-shards",),
    },
    "all": {"switches": ("ultralytics-data", "contiguous")},
    "all-distilled": {
        "spec": {"teacher": {"precision": "fp32"}},
        "switches": ("ultralytics-data", "contiguous"),
    },
    "exact-musgd": {"switches": ("exact-musgd",)},
    "all-exact-musgd": {"switches": ("ultralytics-data", "contiguous", "exact-musgd")},
}
"""Changes of a run of ours, by name; one with a plus is compared with the variant before it. With `all`, a plain
training on one shard is Ultralytics' own bit for bit, and with `all-distilled` a distilled one but for rounding in the
teacher, whose BatchNorms are fused.
`exact-musgd` is a defect that the trainer once had: a comparison should see it.
"""


def plan(args: argparse.Namespace) -> list[Run]:
    """The runs, seed by seed, so that an interrupted series has whole seeds."""
    training = dict(SETTING.training) | EPOCHS | ({"epochs": 2} if args.quick else {})
    data, student = (TINY, "yolo26n.yaml") if args.quick else (SETTING.data, SETTING.student)
    of_teacher = training | TEACHER | ({"epochs": 2, "close_mosaic": 1} if args.quick else {})
    teacher = Run("teacher", TEACHER_SEED, data, "yolo26s.yaml", training=of_teacher)
    runs = []
    for seed in args.seeds:
        for optimizer in args.optimizers:
            for kind in args.kinds:
                own = Run(
                    f"{optimizer} {kind}, ours",
                    seed,
                    data,
                    student,
                    teacher=teacher if kind == "distilled" else None,
                    training=training | {"optimizer": optimizer, "lr0": OPTIMIZERS[optimizer]},
                )
                theirs = replace(own, arm=f"{optimizer} {kind}, Ultralytics", trainer="ultralytics")
                runs += [theirs, own]
                runs += [
                    _variant(own, f"{optimizer} {kind}, {name}", VARIANTS[name])
                    for name in args.variants
                    if kind == "distilled" or "teacher" not in VARIANTS[name].get("spec", {})
                ]
    return runs


def _variant(own: Run, arm: str, changes: dict[str, Any]) -> Run:
    training = dict(own.training) | changes.get("training", {})
    return replace(own, arm=arm, **changes | {"training": training})


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "build" / "bench" / "parity")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench" / "accuracy")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--variants", nargs="*", choices=VARIANTS, default=[])
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument(
        "--quick", action="store_true", help="two epochs of 32 images: tries the bench, compares nothing"
    )
    return parser.parse_args(words)


def command_of(args: argparse.Namespace) -> str:
    """The command that makes the same page, wherever the files are."""
    lists = {name: getattr(args, name) for name in ("seeds", "optimizers", "kinds", "variants")}
    words = [f"--{name} {' '.join(map(str, values))}" for name, values in lists.items() if values]
    return " ".join(["python -m benchmarks.accuracy.parity", *words, *(["--quick"] if args.quick else [])])


def main() -> None:
    """Run the comparison."""
    args = parse()
    runs = plan(args)
    rows = Lanes(args.work, args.results / "raw" / "parity.csv").train(runs, args.lanes)
    (args.results / "parity.md").write_text(page(runs, rows, command_of(args)))
    print(table(differences(runs, rows)))


if __name__ == "__main__":
    main()
