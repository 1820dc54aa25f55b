"""report.json: the student beside its teacher and a baseline, in measured figures. report.html is drawn from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

from distill_api.base import Model

VERSION = 1
"""Changes when a key changes its meaning or goes away; new keys do not change it."""

Who = Literal["student", "teacher", "baseline"]


class ModelReport(Model):
    """One model. Metrics are those of Ultralytics' val on the validation split, by this run's own validation."""

    file: str
    """Relative to the volume that it lies on."""
    sha256: str
    """Digest of the file."""
    size_mb: float
    """Size of the file, in 10⁶ bytes."""
    map: float
    """mAP50-95 of the task's own output: boxes, masks (segment) or keypoints (pose)."""
    map50: float
    """mAP50 of the same."""
    precision: float
    """Precision of the same, at the confidence with the best F1."""
    recall: float
    """Recall of the same."""
    map_by_class: dict[str, float]
    """mAP50-95 by class name, for classes that occur in the validation split."""
    parameters: int | None = None
    """Parameters, fused; null when they were not measured."""
    gflops: float | None = None
    """Operations for one image of `imgsz`, in 10⁹, fused."""
    latency_ms: float | None = None
    """Median time of a forward pass, as `Measured` says."""


class Dataset(Model):
    """What was validated on."""

    config: str
    """The data set's file."""
    digest: str
    """Digest of what it says and of its images' and labels' names."""
    images: int
    """Images in the validation split."""


class Measured(Model):
    """Where and how costs were measured: one image at a time, fused, fp32, without non-maximum suppression."""

    device: str
    """cpu, or cuda:0 …"""
    name: str
    """Name of the device."""
    threads: int
    """CPU threads that a forward pass may take."""
    torch: str
    """Version of PyTorch."""
    ultralytics: str
    """Version of Ultralytics."""


class Training(Model):
    """How the student was trained."""

    epochs: int
    """Epochs finished."""
    planned: int
    """Epochs asked for."""
    best_epoch: int
    """Epoch of weights/best.pt, from 1."""
    seconds: float
    """Time that training steps took, over all attempts."""
    loss: str | None = None
    """Distillation loss; null without a teacher."""
    weight: float | None = None
    """Its weight."""
    schedule: str | None = None
    """Schedule of the weight."""


class Output(Model):
    """An output of the run besides its weights."""

    name: str
    """What it is."""
    files: list[str] = []
    """Its files, relative to the run's folder."""
    problem: str | None = None
    """Why it is missing, in one line; null when it is there."""


class Report(Model):
    """Content of report.json."""

    version: int = VERSION
    """Version of these keys."""
    job: str
    """Name of the DistillJob."""
    task: str
    """detect, segment, pose or obb."""
    imgsz: int
    """Image size that models were validated and measured at."""
    dataset: Dataset
    """What was validated on."""
    measured: Measured
    """Where and how costs were measured."""
    training: Training
    """How the student was trained."""
    models: dict[Who, ModelReport]
    """student always; teacher and baseline where the job has them."""
    epochs: list[dict[str, float]]
    """Rows of results.csv, under its columns' names; a column is left out where it is empty."""
    outputs: list[Output]
    """What was written besides the weights, and what could not be."""

    def to_json(self) -> bytes:
        """The file's content."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def numbers(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Rows of results.csv as finite numbers."""
    return [{name: float(text) for name, text in row.items() if text and math.isfinite(float(text))} for row in rows]
