"""The demo's final table, and the validation of the result with Ultralytics."""

import csv
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


def distillation_losses(results: Path) -> list[float]:
    """The column train/dis_loss of a results.csv, one value per epoch."""
    with results.open(newline="") as file:
        rows = [{key.strip(): value for key, value in row.items()} for row in csv.DictReader(file)]
    return [float(row["train/dis_loss"]) for row in rows if row.get("train/dis_loss")]


def outcome(job: dict[str, Any], results: Path) -> list[str]:
    """mAP of student and teacher, first and last distillation loss."""
    result = job["status"]["result"]
    losses = distillation_losses(results)
    return [
        f"mAP50-95   student {number(result.get('studentMap'))}   teacher {number(result.get('teacherMap'))}",
        f"train/dis_loss   first epoch {losses[0]:.3f}   last epoch {losses[-1]:.3f}   ({len(losses)} epochs)",
    ]


def validate(weights: Path, data: Path, imgsz: int, project: Path) -> float:
    """mAP50-95 of `YOLO(weights).val()`, without any code of this project."""
    os.environ["YOLO_VERBOSE"] = "false"
    from ultralytics import YOLO

    metrics = YOLO(str(weights)).val(
        data=str(data), imgsz=imgsz, batch=16, device="cpu", workers=0, plots=False, verbose=False, project=str(project)
    )
    return float(metrics.box.map)
