"""Trains a student in several ways and reports what each is worth.

    python -m benchmarks.accuracy --scenario scratch --task detect --seeds 0 1 2 3 4 [--data-seed 0] [--arms …]

Finished runs are kept in RESULTS/raw/<scenario>-<task>.csv and not run again; an interrupted run resumes. Writes
RESULTS/<scenario>-<task>.md and its curves. Choose a recipe with one data seed, and confirm it with another.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks import ROOT
from benchmarks.accuracy.arms import ARMS, DEFAULT_ARMS, SCENARIOS, SIZES, SUFFIX
from benchmarks.accuracy.lanes import Lanes
from benchmarks.accuracy.plan import Plan
from benchmarks.accuracy.report.curves import draw
from benchmarks.accuracy.report.report import report
from benchmarks.accuracy.rows import by_digest, read_rows


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", choices=SCENARIOS, default="scratch")
    parser.add_argument("--task", choices=SUFFIX, default="detect")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(5)))
    parser.add_argument("--data-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(DEFAULT_ARMS))
    parser.add_argument("--size", choices=SIZES, default="quick")
    parser.add_argument("--lanes", type=int, default=2)
    parser.add_argument("--results", type=Path, default=ROOT / "docs" / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "bench" / "accuracy")
    parser.add_argument("--report-only", action="store_true", help="write the report from the rows that exist")
    return parser.parse_args(words)


def command_of(plan: Plan) -> str:
    """The command that makes the same page, wherever the files are."""
    seeds = " ".join(map(str, plan.seeds))
    return (
        f"python -m benchmarks.accuracy --scenario {plan.scenario} --task {plan.task} --size {plan.size} "
        f"--data-seed {plan.data_seed} --seeds {seeds} --arms {' '.join(plan.arms)}"
    )


def main(words: list[str] | None = None) -> None:
    """Train what is missing, and write the report."""
    args = parse(words)
    try:
        plan = Plan(args.scenario, args.task, args.size, args.data_seed, args.seeds, args.arms)
    except ValueError as error:
        raise SystemExit(str(error)) from None
    table = args.results / "raw" / f"{plan.name}.csv"
    runs = plan.runs()
    if not args.report_only:
        rows = Lanes(args.work, table).train(runs, args.lanes)
        equal = plan.equal_runs({digest: row.cpu_seconds for digest, row in rows.items()})
        Lanes(args.work, table).train(equal, args.lanes)
    rows = by_digest(read_rows(table))
    if all(run.digest in rows for run in runs):
        runs += plan.equal_runs({digest: row.cpu_seconds for digest, row in rows.items()})
    command = command_of(plan)
    picture = draw(args.results / f"{plan.name}.svg", runs, rows)
    page = args.results / f"{plan.name}.md"
    page.write_text(report(plan, runs, rows, command, picture.name if picture else None))
    print(page)


if __name__ == "__main__":
    main()
