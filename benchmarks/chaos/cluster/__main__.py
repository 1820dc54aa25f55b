"""A job under preemptions, evictions, drains, deletions, kills and dead kubelets on a real cluster: nothing is lost.

    python -m benchmarks.chaos.cluster [--disruptions 20] [--seed 0]

One job of two nodes runs undisturbed. A second one like it is disturbed again and again, each time once it makes steps
again, and has to end Complete with the same bits, and with a status that tells truly what has happened. Prints what
each kind of disruption cost and where the time of a recovery goes; writes that, with everything that was seen, to
build/bench/chaos-cluster.json, and a picture of the job's life beside it. Uses the one-machine cluster that runs, or
makes one and takes it down (KEEP=1 keeps it). Exits 1 when anything is not as it should be.
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
    """Run both jobs, compare, print, write; 1 when something is wrong."""
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
              " tells what was done to the job")  # fmt: skip
    return 1 if wrong else 0


def say(runner: Runner, calm: float, args: argparse.Namespace) -> None:
    """Print what was done and what it cost."""
    status = runner.seen.job.get("status", {})
    print(f"\n{table.by_kind(runner.made)}\n\n{table.by_phase(runner.made)}\n")
    print(f"{len(runner.made)} disruptions in {runner.ended - runner.began:.0f} s (undisturbed {calm:.0f} s),"
          f" seed {args.seed}; {status.get('restarts')} failures/preemptions;"
          f" goodput {status.get('goodput', {}).get('ratio', math.nan):.2f}")  # fmt: skip


def write(runner: Runner, calm: float, wrong: list[str], args: argparse.Namespace) -> None:
    """Write everything that was seen."""
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
    """Draw the life of a job that has ended well."""
    recovered = [made.recovery_seconds for made in runner.made if made.causes and made.recovery_seconds is not None]
    middle = statistics.median(recovered) if recovered else math.nan
    goodput = runner.seen.job["status"]["goodput"]["ratio"]
    title = (f"{len(runner.made)} disruptions in {(runner.ended - runner.began) / 60:.0f} minutes: half of the"
             f" recoveries take {middle:.0f} s or less; goodput {goodput:.0%}")  # fmt: skip
    picture.draw(out, runner.seen, runner.made, runner.began, runner.ended, title)


def main() -> int:
    """0 when the proof holds, 1 when not, 2 where there can be no cluster."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--disruptions", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "chaos-cluster.json")
    args = parser.parse_args()
    reason = why_not_a_cluster()
    if os.environ.get("DISTILL_KUBECONFIG"):
        reason = "nodes are disturbed, which needs the one-machine cluster: unset DISTILL_KUBECONFIG"
    if reason is not None:
        print(f"error: {reason}", file=sys.stderr)
        return 2
    try:
        return on_cluster(args)
    except (Failed, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def on_cluster(args: argparse.Namespace) -> int:
    """Prove it on the machine's cluster; one that was started for it is taken down, or kept with KEEP=1."""
    cluster, mine = stage.open_cluster(GPUS)
    assert isinstance(cluster, Cluster)
    volumes = ROOT / "build" / "chaos-cluster"  # always the same, so that a kept cluster's claims still lead there
    try:
        return prove(Testbed(cluster, volumes), args)
    finally:
        if mine and os.environ.get("KEEP") != "1":
            cluster.down()
            shutil.rmtree(volumes, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
