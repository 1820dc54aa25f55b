"""What the demo shows at its end: what distillation is worth, where the report is, and what to try next."""

import csv
import statistics
from pathlib import Path
from typing import Any

from digits.demo import stage
from digits.demo.table import number

RECORDED = stage.ROOT / "docs" / "results" / "raw" / "scratch-detect.csv"
BOARD = "docs/pictures/job.png"


def recorded(raw: Path = RECORDED) -> list[str]:
    """Plain training beside `recipe: auto`, from the recorded runs. The demo has no time for a plain student."""
    with raw.open(newline="") as file:
        rows = list(csv.DictReader(file))
    # A seed that was trained again, as after a change of the recipe, counts by its last row.
    last = ({row["seed"]: row for row in rows if row["arm"] == arm} for arm in ("plain", "auto"))
    plain, auto = (list(by_seed.values()) for by_seed in last)
    scores = [statistics.mean(float(row["map"]) for row in arm) for arm in (plain, auto)]
    return [
        "What the teacher is worth was measured before, not by this demo: the same student, 400 scenes of 128 px,",
        f"{auto[0]['epochs']} epochs, mean of {len(auto)} seeds (docs/results/{raw.stem}.md):",
        f"mAP50-95   plain {scores[0]:.3f}   recipe: auto {scores[1]:.3f}",
    ]


def scores(report: dict[str, Any]) -> str:
    """Student and teacher of this run, by its report.json."""
    models = report["models"]
    found = "   ".join(f"{role} {number(models[role]['map'])}" for role in ("student", "teacher") if role in models)
    agreement = report.get("agreement")
    agrees = f"   they agree on {agreement['student']:.0%} of what they detect" if agreement else ""
    return f"mAP50-95   {found}{agrees}"


def where(report: Path) -> list[str]:
    """Where to see more."""
    return [f"The student's report, for any browser: {report}", f"A job's board in Grafana looks like this: {BOARD}"]


def on_cluster(namespace: str, teacher: str, student: str, *, kept: bool) -> list[str]:
    """Commands for the cluster of the demo."""
    commands = [f"distill {verb} -n {namespace} {student}" for verb in ("status", "why", "open")]
    commands.append(f"distill compare -n {namespace} {teacher} {student}")
    first = "Next:" if kept else "Next, on a cluster that stays (KEEP=1 make demo; it says which KUBECONFIG):"
    return [first, *(f"  .venv/bin/{command}" for command in commands)]


def without_cluster() -> list[str]:
    """What to try on a machine that had no cluster."""
    return [
        "Next:",
        "  change examples/digits/distilljob.yaml, then .venv/bin/distill run examples/digits/distilljob.yaml",
        "  docs/local.md has more; a preemption, and distill status, why and compare, need a cluster",
    ]
