"""Disturbs the operator on a real API server, and checks that jobs end as if nothing had happened.

    python -m benchmarks.faultapi [--seed 0] [--parts crashes,answers,server,mutations] [--lanes 2]
                                  [--every 1] [--lives 20] [--times 3] [--mutations 500]

etcd, the API server, the controller manager and the scheduler are real, and so is the operator, a process; kubelets are
pretended. Between the operator and the API server stands a proxy. One life of a job is recorded undisturbed: it is
applied, runs, a worker fails, it recovers, is suspended, resumes, succeeds, and its TTL ends. Then

  crashes    the operator is killed just before, and just after, each of its writes
  answers    requests and watches are disturbed at random
  server     the API server is restarted, etcd stops for 20 s
  mutations  the specs of live jobs are changed at random

Exits with 1 if a life ends otherwise, two gangs live at a time, something is left over, or the operator fails.
"""

import argparse
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks.faultapi import disturbed, mutations
from benchmarks.faultapi.disturbed import Row
from benchmarks.faultapi.testbed import testbed

PARTS = ("crashes", "answers", "server", "mutations")
PROMISES = """\
  phase, conditions, result, the attempts' ends and steps, and all counts are those of the undisturbed life
  no event tells twice of what happened once
  no two gangs live at any time, no count goes back, and the end of an attempt does not change
  nothing of the job is left when its TTL has ended
  the operator does not end by itself, and logs no error of its own"""


def main() -> int:
    """Run the parts. Returns 1 if a promise was broken."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of everything that is drawn at random")
    parser.add_argument("--parts", default=",".join(PARTS), help="what to run, with commas")
    parser.add_argument("--lanes", type=int, default=2, help="lives at a time, each with an operator of its own")
    parser.add_argument("--every", type=int, default=1, help="crashes: only every so manieth")
    parser.add_argument("--lives", type=int, default=20, help="answers: lives with all kinds of faults")
    parser.add_argument("--times", type=int, default=3, help="server: how often each")
    parser.add_argument("--mutations", type=int, default=500, help="how many")
    args = parser.parse_args()
    parts = [part for part in args.parts.split(",") if part]
    if unknown := set(parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; use {', '.join(PARTS)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is stopped
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="faultapi-"))
    print(f"seed {args.seed}; logs are in {folder}", flush=True)
    rows = run(args, parts, folder)
    print(table(rows))
    print(f"checked in each life:\n{PROMISES}")
    broken = [row for row in rows if row.problems]
    print(
        f"{len(rows)} rows in {time.monotonic() - began:.0f} s, {len(broken)} with a broken promise; seed {args.seed}"
    )
    return 1 if broken else 0


def run(args: argparse.Namespace, parts: list[str], folder: Path) -> list[Row]:
    """The rows of all parts."""
    rows: list[Row] = []
    with testbed(folder, args.lanes) as (plane, lanes):
        expected, writes = disturbed.undisturbed(lanes[0])
        print(f"the undisturbed life has {len(writes)} writes", flush=True)
        if "crashes" in parts:
            rows += disturbed.run_all(lanes, disturbed.crashes(writes)[:: args.every], expected, say)
        if "answers" in parts:
            stories = disturbed.each_kind(args.seed) + disturbed.answers(args.seed, args.lives)
            rows += disturbed.run_all(lanes, stories, expected, say)
        if "server" in parts:
            rows += disturbed.server(plane, lanes, args.seed, args.times, expected, say)
        if "mutations" in parts:
            rows += mutations.run(lanes[0], args.seed, args.mutations, say)
    return rows


def say(row: Row) -> None:
    """One line while it runs."""
    faults = ", ".join(f"{what} {count}" for what, count in row.faults.items())
    state = "ok   " if not row.problems else "BAD  "
    print(f"{state} {row.seconds:5.0f} s  {row.part}: {row.name} [{faults}]", flush=True)
    for problem in row.problems:
        print(f"        {problem[:1500]}", flush=True)


def table(rows: list[Row]) -> str:
    """A line for each part."""
    lines = [f"{'part':10} {'rows':>5} {'broken':>7} {'seconds':>8}  faults"]
    for part in dict.fromkeys(row.part for row in rows):
        of_part = [row for row in rows if row.part == part]
        faults = sum((row.faults for row in of_part), Counter[str]())
        done = ", ".join(f"{what} {count}" for what, count in faults.most_common())
        broken, seconds = sum(bool(row.problems) for row in of_part), sum(row.seconds for row in of_part)
        lines.append(f"{part:10} {len(of_part):>5} {broken:>7} {seconds:>8.0f}  {done}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
