"""The demo's final table, and the validation of the result with Ultralytics."""

import json
import os
from pathlib import Path
from typing import Any


def number(value: float | int | None, digits: int = 3) -> str:
    """A number for humans; a dash for None."""
    if value is None:
        return "–"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def attempts(job: dict[str, Any]) -> list[str]:
    """The attempts of a job as aligned rows."""
    rows = [("attempt", "outcome", "cause", "resumedFromStep", "committedStep", "lostSteps")]
    for attempt in job["status"]["attempts"]:
        rows.append(
            (
                str(attempt["number"]),
                attempt["outcome"],
                attempt.get("reason", "–"),
                number(attempt.get("resumedFromStep")),
                number(attempt.get("committedStep")),
                number(attempt.get("lostSteps")),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def learned(report: Path) -> str:
    """What the student had from the teacher, by its report.json."""
    training = json.loads(report.read_text())["training"]
    parts = [f"recipe: auto, that is {json.dumps(training['recipe'])}"] if training["recipe"] else []
    if training["inherited"]:
        parts.append(f"{training['inherited']['share']:.0%} of the first weights are taken from the teacher")
    if training["loss"]:
        parts.append(f"distilled with {training['loss']}")
    return "; ".join(parts)


def validate(weights: Path, data: Path, imgsz: int, project: Path) -> float:
    """mAP50-95 of `YOLO(weights).val()`, without any code of this project."""
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    metrics = YOLO(str(weights)).val(
        data=str(data), imgsz=imgsz, batch=16, device="cpu", workers=0, plots=False, verbose=False, project=str(project)
    )
    return float(metrics.box.map)
