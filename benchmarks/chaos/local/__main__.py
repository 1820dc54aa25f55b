"""Kills processes of short distillations at random; the results must be bitwise equal to those of an undisturbed run.

    python -m benchmarks.chaos.local [--kills 50] [--seed 0] [--per-run 10] [--epochs 6] [--images 40] [--seconds 3600]

Runs of two ranks are disturbed at random moments: while they start, train, validate, commit or end. Then they run to
their end. `lost` counts steps that had to be repeated. Prints a table and writes it with every disturbance to
build/bench/chaos.json. Exits with 1 if a result differs.
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
from dataclasses import asdict, dataclass, field
from pathlib import Path

from benchmarks import ROOT
from benchmarks.chaos.local.run import END_SECONDS, Run
from benchmarks.chaos.local.table import table
from benchmarks.outcome import Outcome
from benchmarks.small_run import Local, end_all, make_volumes

STALL_SECONDS = 40
"""recovery.stallTimeoutSeconds: a stopped rank is detected after 28 s, and slow imports do not count as a stall."""
BATCH = 8
TRAINING = {"batch": BATCH, "nbs": 16, "imgsz": 64, "optimizer": "SGD", "workers": 0, "plots": False,
            "close_mosaic": 1, "warmup_epochs": 1.0}  # fmt: skip


@dataclass
class Chaos:
    """Disturbed runs, compared with an undisturbed one."""

    root: Path
    args: argparse.Namespace
    runs: list[Run] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Problems found."""
    seconds: float = END_SECONDS
    """Duration of the undisturbed run."""

    def go(self) -> None:
        """Run all runs. Raises RuntimeError or AssertionError if one does not end as expected."""
        args, draw, began = self.args, random.Random(self.args.seed), time.monotonic()
        steps = args.epochs * -(-args.images // BATCH)
        make_volumes(self.root, args.images)
        spec = {"training": {**TRAINING, "epochs": args.epochs}, "recovery": {"stallTimeoutSeconds": STALL_SECONDS}}
        calm = Local(self.root, self.root / "calm", spec)
        started = time.monotonic()
        Run(-1, calm, draw, self.seconds, steps).go(0)
        self.seconds = time.monotonic() - started
        expected = Outcome.of(calm.folder, steps)
        print(f"reference: {steps} steps of 2 ranks in {self.seconds:.1f} s", flush=True)
        left, until = args.kills, began + args.seconds
        while left > 0 and time.monotonic() < until:
            number = len(self.runs)
            local = Local(self.root, self.root / f"run-{number}", spec)
            run = Run(number, local, draw, self.seconds, steps)
            self.runs.append(run)
            started = time.monotonic()
            run.go(min(left, args.per_run), until)
            if not run.disturbances:  # the machine is faster than during the reference run: disturb earlier
                self.seconds = min(self.seconds, time.monotonic() - started)
            left -= len(run.disturbances)
            difference = Outcome.of(local.folder, steps).difference(expected)
            if difference is not None:
                self.wrong.append(f"run {number}: {difference}")
            result = difference or "bitwise equal"
            print(f"run {number}: {len(run.disturbances)} disturbances, {result}; {left} left", flush=True)
            shutil.rmtree(local.results, ignore_errors=True)

    def report(self, took: float) -> int:
        """Print the table and write the report. Returns the exit code."""
        made = [one for run in self.runs for one in run.disturbances]
        print(table(made))
        print(f"{max(0, len(self.runs) - len(self.wrong))} of {len(self.runs)} runs are bitwise equal to the reference"
              f" (state, results.csv, best.pt); {took:.0f} s, seed {self.args.seed}")  # fmt: skip
        report = {
            "settings": {key: str(value) for key, value in vars(self.args).items()},
            "reference_seconds": self.seconds,
            "different": self.wrong,
            "runs": len(self.runs),
            "disturbances": [asdict(one) for one in made],
        }
        self.args.out.parent.mkdir(parents=True, exist_ok=True)
        self.args.out.write_text(json.dumps(report, indent=2) + "\n")
        return 1 if self.wrong else 0


def main() -> int:
    """Run the chaos test. Returns 1 if a result differs from the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no further kill after this time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "chaos.json")
    args = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="distill-chaos-", ignore_cleanup_errors=True) as folder:
        chaos = Chaos(Path(folder), args)
        try:
            chaos.go()
        except (RuntimeError, AssertionError, OSError) as error:
            chaos.wrong.append(f"run {len(chaos.runs) - 1}: {error}")
            print(f"error: {chaos.wrong[-1]}", file=sys.stderr)
        finally:
            end_all()
    return chaos.report(time.monotonic() - began)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
