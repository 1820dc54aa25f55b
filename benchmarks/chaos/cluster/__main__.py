"""Disrupts a job on a real cluster with preemptions, evictions, drains, deletions, kills and stopped kubelets.

    python -m benchmarks.chaos.cluster [--disruptions 20] [--seed 0]

One job of two nodes runs undisturbed. A second one is disrupted again each time it has recovered. It must end Complete,
be bitwise equal, and have a status that matches what happened. Prints the cost of each kind of disruption and the
phases of recovery, and writes them with all observations to build/bench/chaos-cluster.json, with a picture of the job's
timeline beside it. Uses the running one-machine cluster, or starts one and removes it afterwards (KEEP=1 keeps it).
Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import signal
import statistics
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import ROOT
from benchmarks.chaos.cluster import picture, table
from benchmarks.chaos.cluster.checks import complaints
from benchmarks.chaos.cluster.disruptions import GPUS, schedule
from benchmarks.chaos.cluster.runner import Failed, Runner, run_calmly
from benchmarks.chaos.cluster.testbed import INTERVAL_SECONDS, STEPS_PER_EPOCH, Testbed
from digits.demo import stage
from digits.demo.__main__ import why_not_a_cluster
from testcluster import Cluster


def prove(testbed: Testbed, args: argparse.Namespace) -> int:
    """Run both jobs, compare them, and write the report. Returns the exit code."""
    draw = random.Random(args.seed)
    runner = Runner(testbed, schedule(args.disruptions, draw), draw)
    steps = runner.epochs * STEPS_PER_EPOCH
    testbed.prepare()
    calm = run_calmly(testbed, "undisturbed", runner.epochs)
    print(f"undisturbed: {steps} steps of 2 nodes in {calm:.0f} s", flush=True)
    wrong: list[str] = []
    try:
        runner.run("disturbed")
        wrong += complaints(runner.made, runner.seen, INTERVAL_SECONDS)
        difference = testbed.outcome("disturbed", steps).difference(testbed.outcome("undisturbed", steps))
        if difference is not None:
            wrong.append(f"{difference} differs from the undisturbed run's")
        draw_picture(runner, args.out.with_suffix(".png"))
    except (Failed, AssertionError, RuntimeError, OSError) as error:
        wrong.append(str(error))
    say(runner, calm, args)
    write(runner, calm, wrong, args)
    for text in wrong:
        print(f"error: {text}", file=sys.stderr)
    if not wrong:
        print("Complete; state, best.pt and results.csv are bitwise equal to the undisturbed run's, and the status"
              " matches the disruptions")  # fmt: skip
    return 1 if wrong else 0


def say(runner: Runner, calm: float, args: argparse.Namespace) -> None:
    """Print the disruptions and their cost."""
    status = runner.seen.job.get("status", {})
    print(f"\n{table.by_kind(runner.made)}\n\n{table.by_phase(runner.made)}\n")
    print(f"{len(runner.made)} disruptions in {runner.ended - runner.began:.0f} s (undisturbed {calm:.0f} s),"
          f" seed {args.seed}; {status.get('restarts')} failures/preemptions;"
          f" goodput {status.get('goodput', {}).get('ratio', math.nan):.2f}")  # fmt: skip


def write(runner: Runner, calm: float, wrong: list[str], args: argparse.Namespace) -> None:
    """Write all observations."""
    seen = runner.seen
    report = {
        "settings": {"disruptions": args.disruptions, "seed": args.seed, "steps": runner.epochs * STEPS_PER_EPOCH,
                     "interval_seconds": INTERVAL_SECONDS},
        "undisturbed_seconds": calm,
        "began": runner.began,
        "ended": runner.ended,
        "wrong": wrong,
        "disruptions": [asdict(made) for made in runner.made],
        "attempts": [seen.attempts[number] for number in sorted(seen.attempts)],
        "status": {key: value for key, value in seen.job.get("status", {}).items() if key != "attempts"},
        "pods": [asdict(pod) for pod in seen.pods.values()],
        "jobs_created": seen.created,
        "rank0": [asdict(sample) for sample in seen.samples],
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report) + "\n")
    print(f"wrote {args.out}")


def draw_picture(runner: Runner, out: Path) -> None:
    """Draw the timeline of the job."""
    recovered = [made.recovery_seconds for made in runner.made if made.causes and made.recovery_seconds is not None]
    middle = statistics.median(recovered) if recovered else math.nan
    goodput = runner.seen.job["status"]["goodput"]["ratio"]
    title = (f"{len(runner.made)} disruptions in {(runner.ended - runner.began) / 60:.0f} minutes: half of the"
             f" recoveries take {middle:.0f} s or less; goodput {goodput:.0%}")  # fmt: skip
    picture.draw(out, runner.seen, runner.made, runner.began, runner.ended, title)


def main() -> int:
    """Exit code: 0 if all checks pass, 1 if not, 2 if no cluster can be started."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disruptions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "chaos-cluster.json")
    args = parser.parse_args()
    reason = why_not_a_cluster()
    if os.environ.get("DISTILL_KUBECONFIG"):
        reason = "disrupting nodes needs the one-machine cluster; unset DISTILL_KUBECONFIG"
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    try:
        return on_cluster(args)
    except (Failed, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def on_cluster(args: argparse.Namespace) -> int:
    """Run on the one-machine cluster. If it was started here, remove it afterwards unless KEEP=1."""
    cluster, started = stage.open_cluster(GPUS)
    assert isinstance(cluster, Cluster)
    volumes = ROOT / "build" / "chaos-cluster"  # a fixed path, because the claims of a kept cluster point to it
    try:
        return prove(Testbed(cluster, volumes), args)
    finally:
        if started and os.environ.get("KEEP") != "1":
            cluster.down()
            shutil.rmtree(volumes, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
