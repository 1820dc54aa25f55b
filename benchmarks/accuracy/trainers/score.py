"""Scores weights with Ultralytics' `val`, the same for every trainer, with either head of an end-to-end model."""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import distill_trainer  # noqa: F401  (first: it keeps ultralytics offline)
from benchmarks.accuracy.trainers.request import Request

SUFFIX = {"detect": "B", "segment": "M", "pose": "P", "obb": "B"}
"""Suffix of the task's metric: boxes (B), masks (M) or keypoints (P)."""
UNHURRIED = 60.0
"""Seconds an image for non-maximum suppression. Ultralytics gives up after 0.05 s, which a busy machine needs."""


def scores(weights: Path, request: Request) -> dict[str, float | None]:
    """mAP50-95 and mAP50 with the one-to-many head, and mAP50-95 with the one-to-one head (None without one)."""
    from ultralytics import YOLO
    from ultralytics.utils import nms

    patient = partial(nms.non_max_suppression, max_time_img=UNHURRIED)
    suffix = SUFFIX[request.task]

    def val(model: YOLO, **arguments: object) -> dict[str, float]:
        before, nms.non_max_suppression = nms.non_max_suppression, patient
        try:
            metrics = model.val(
                data=str(request.config),
                imgsz=request.training["imgsz"],
                batch=32,
                device="cpu",
                workers=0,
                plots=False,
                verbose=False,
                project=request.folder,
                name="val",
                exist_ok=True,
                **arguments,
            )
        finally:
            nms.non_max_suppression = before
        return dict(metrics.results_dict)

    many = val(YOLO(str(weights)))
    dual = getattr(YOLO(str(weights)).model.model[-1], "one2one_cv3", None) is not None
    one = val(YOLO(str(weights)), nms=False) if dual else None
    return {
        "map": many[f"metrics/mAP50-95({suffix})"],
        "map50": many[f"metrics/mAP50({suffix})"],
        "map_one2one": one[f"metrics/mAP50-95({suffix})"] if one else None,
    }


def curve(results_csv: Path, task: str) -> list[float]:
    """mAP50-95 after each epoch, as the trainer itself measured it; empty if it validated only at the end."""
    with results_csv.open(newline="") as file:
        rows = [{name.strip(): value for name, value in row.items()} for row in csv.DictReader(file)]
    name = f"metrics/mAP50-95({SUFFIX[task]})"
    return [float(row[name]) for row in rows if row.get(name)]
