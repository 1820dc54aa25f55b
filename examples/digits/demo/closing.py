"""What the demo shows at its end: what the teacher was worth, where the report is, and what to try next."""

from pathlib import Path
from typing import Any

from digits.demo.table import number

BOARD = "docs/pictures/job.png"
RESULTS = "docs/results/README.md"


def scores(report: dict[str, Any]) -> str:
    """The student beside itself without a teacher, and the teacher, by the report.json of this run."""
    models = report["models"]
    names = {"baseline": "the student alone", "student": "with its teacher", "teacher": "the teacher"}
    found = "   ".join(f"{told} {number(models[role]['map'])}" for role, told in names.items() if role in models)
    return f"mAP50-95   {found}"


def board(picture: Path | None, missing: str | None) -> str:
    """Where the picture of the job's board is, or why there is none."""
    if missing is None:
        return f"The job's board in Grafana, with the preemption: {picture}"
    return f"No picture of the job's board in Grafana: {missing}. A recorded one: {BOARD}"


def where(report: Path, board_: str) -> list[str]:
    """Where to see more."""
    return [
        f"The student's report, for any browser: {report}",
        board_,
        f"More of what a teacher is worth, on other data, with every seed: {RESULTS}",
    ]


def on_cluster(namespace: str, plain: str, student: str, *, kept: bool) -> list[str]:
    """Commands for the cluster of the demo."""
    commands = [f"distill {verb} -n {namespace} {student}" for verb in ("status", "why", "open")]
    commands.append(f"distill compare -n {namespace} {plain} {student}")
    first = "Next:" if kept else "Next, on a cluster that stays (KEEP=1 make demo; it says which KUBECONFIG):"
    return [first, *(f"  .venv/bin/{command}" for command in commands)]


def without_cluster() -> list[str]:
    """What to try on a machine that had no cluster."""
    return [
        "Next:",
        "  change examples/digits/distilljob.yaml, then .venv/bin/distill run examples/digits/distilljob.yaml",
        "  docs/local.md has more; a preemption, and distill status, why and compare, need a cluster",
    ]
