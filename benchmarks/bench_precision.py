"""What a teacher in int8 costs the student: the same trainings with plain steps, a teacher in fp32, and one in int8.

    python benchmarks/bench_precision.py [--seeds 3] [--epochs 5] [--teacher-epochs 10] [--folder build/bench/precision]

1,500 scenes of digits at 128 px, yolo26n <- yolo26s, which is trained first. Prints mAP50-95 of every student by seed.
Runs that the folder holds already are not repeated; one of them that was interrupted goes on.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from distill_trainer import distill

ROOT = Path(__file__).parents[1]
IMGSZ = 128
TRAINING: dict[str, Any] = {
    "imgsz": IMGSZ,
    "batch": 16,
    "nbs": 16,
    "optimizer": "AdamW",
    "lr0": 0.002,
    "mosaic": 0.0,
    "fliplr": 0.0,  # a mirrored digit is no digit
    "warmup_epochs": 1,
    "val": False,
    "plots": False,
    "workers": 1,
    "device": "cpu",
    "verbose": False,
}
PLAIN = "plain"
TEACHERS = (PLAIN, "fp32", "int8")
"""No teacher, and the precisions of one."""


def data_set(folder: Path) -> Path:
    """The data set, generated if it is not there."""
    config = folder / "digits.yaml"
    if not config.exists():
        sys.path.insert(0, str(ROOT / "examples" / "digits"))
        from generate import generate

        generate(folder, "detect", {"train": 1500, "val": 300}, IMGSZ, seed=0)
    return config


def main() -> None:
    """Train the teacher, then all students."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--teacher-epochs", type=int, default=10)
    parser.add_argument("--folder", type=Path, default=ROOT / "build" / "bench" / "precision")
    args = parser.parse_args()
    data = data_set(args.folder / "digits")
    common = TRAINING | {"data": data, "project": args.folder / "runs"}
    teacher = distill(student="yolo26s.yaml", name="teacher", epochs=args.teacher_epochs, **common)
    print(f"teacher: {teacher.student_map:.3f}", flush=True)
    found: dict[str, list[float]] = {kind: [] for kind in TEACHERS}
    for seed in range(args.seeds):
        for kind in TEACHERS:
            taught = {} if kind == PLAIN else {"teacher": teacher.best, "teacher_precision": kind}
            name = f"{kind}-{seed}"
            run = distill(student="yolo26n.yaml", name=name, epochs=args.epochs, seed=seed, **taught, **common)
            assert run.student_map is not None
            found[kind].append(run.student_map)
            print(f"{name}: {run.student_map:.3f}", flush=True)
    for kind, scores in found.items():
        change = [score - plain for score, plain in zip(scores, found[PLAIN], strict=True)]
        print(f"{kind}: mean {statistics.mean(scores):.4f}, above {PLAIN} {statistics.mean(change):+.4f}")
    (args.folder / "precision.json").write_text(json.dumps({"teacher": teacher.student_map, "students": found}) + "\n")


if __name__ == "__main__":
    main()
