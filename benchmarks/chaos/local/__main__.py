"""Random kills of a short distillation: whatever is killed when, it ends bitwise equal to the run that nothing befell.

    python -m benchmarks.chaos.local [--kills 50] [--seed 0] [--per-run 10] [--epochs 6] [--images 40] [--seconds 3600]

Runs of two ranks are disturbed at random moments, of starting up, training, validating, committing or winding down, and
then left to end. `lost` counts the steps that had been made and had to be made again. Prints the table and writes it,
with every disturbance, to build/bench/chaos.json. Exits 1 when a run ends differently.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import signal
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from benchmarks import ROOT
from benchmarks.chaos.local.run import END_SECONDS, Run
from benchmarks.chaos.local.table import table
from benchmarks.outcome import Outcome
from benchmarks.small_run import Local, end_all, make_volumes

STALL_SECONDS = 40
"""recovery.stallTimeoutSeconds: a stopped rank is found after 28 s, and imports on a busy machine are no stall."""


def main() -> int:
    """Run the chaos; 1 when a run ends differently from the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no further kill after this time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "chaos.json")
    args = parser.parse_args()
    batch = 8
    steps = args.epochs * -(-args.images // batch)
    training = {"epochs": args.epochs, "batch": batch, "nbs": 16, "imgsz": 64, "optimizer": "SGD", "workers": 0,
                "plots": False, "close_mosaic": 1, "warmup_epochs": 1.0}  # fmt: skip
    spec = {"training": training, "recovery": {"stallTimeoutSeconds": STALL_SECONDS}}
    began, draw = time.monotonic(), random.Random(args.seed)
    runs: list[Run] = []
    different: list[str] = []
    with tempfile.TemporaryDirectory(prefix="distill-chaos-") as folder:
        root = Path(folder)
        make_volumes(root, args.images)
        calm = Local(root, root / "calm", spec)
        reference = Run(-1, calm, draw, END_SECONDS, steps)
        started = time.monotonic()
        reference.go(0)
        seconds = time.monotonic() - started
        expected = Outcome.of(calm.folder, steps)
        print(f"reference: {steps} steps of 2 ranks in {seconds:.1f} s", flush=True)
        left, until = args.kills, began + args.seconds
        while left > 0 and time.monotonic() < until:
            local = Local(root, root / f"run-{len(runs)}", spec)
            run = Run(len(runs), local, draw, seconds, steps)
            started = time.monotonic()
            run.go(min(left, args.per_run), until)
            if not run.disturbances:  # the machine has become faster than the reference was: aim earlier
                seconds = min(seconds, time.monotonic() - started)
            runs.append(run)
            left -= len(run.disturbances)
            difference = Outcome.of(local.folder, steps).difference(expected)
            if difference is not None:
                different.append(f"run {len(runs) - 1}: {difference}")
            print(
                f"run {len(runs) - 1}: {len(run.disturbances)} disturbances,"
                f" {difference or 'bitwise equal'}; {left} left", flush=True,
            )  # fmt: skip
            shutil.rmtree(local.results, ignore_errors=True)
    all_made = [made for run in runs for made in run.disturbances]
    print(table(all_made))
    print(f"{len(runs) - len(different)} of {len(runs)} runs are bitwise equal to the reference"
          f" (state, results.csv, best.pt); {time.monotonic() - began:.0f} s, seed {args.seed}")  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "settings": {key: str(value) for key, value in vars(args).items()},
        "reference_seconds": seconds,
        "different": different,
        "runs": len(runs),
        "disturbances": [asdict(made) for made in all_made],
    }
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if different else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    finally:
        end_all()
