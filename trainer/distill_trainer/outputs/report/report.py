"""report.json: compares the student with the teacher and a baseline. report.html is rendered from it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from distill_api.base import Model
from distill_api.pod.report import RankSeconds

VERSION = 1
"""Incremented when a key is removed or changes its meaning, not when a key is added."""

ModelRole = Literal["student", "teacher", "baseline"]


class ModelReport(Model):
    """One model. Metrics are those of Ultralytics' val, measured by this run on the validation split."""

    file: str
    """Path relative to its volume."""
    sha256: str
    """SHA-256 of the file."""
    size_mb: float
    """Size of the file, in 10⁶ bytes."""
    map: float
    """mAP50-95 of the task's output: boxes, masks (segment) or keypoints (pose)."""
    map50: float
    """mAP50 of the task's output."""
    precision: float
    """Precision of the task's output, at the confidence with the best F1."""
    recall: float
    """Recall of the task's output, at the same confidence."""
    map_by_class: dict[str, float]
    """mAP50-95 by class name, for classes that occur in the validation split."""
    parameters: int | None = None
    """Parameters of the fused model; null if not measured."""
    gflops: float | None = None
    """GFLOPs of the fused model for one image of `imgsz`; null if not measured."""
    latency_ms: float | None = None
    """Median time of a forward pass, measured as described in `Measured`; null if not measured."""


class Dataset(Model):
    """The data set of the validation."""

    config: str
    """The data set's YAML file."""
    digest: str
    """Digest of the data set's class names, keypoints and image paths."""
    images: int
    """Images in the validation split."""


class Measured(Model):
    """Where costs were measured: one image at a time, fused, fp32, without non-maximum suppression."""

    device: str
    """cpu, or cuda:0 …"""
    name: str
    """Name of the device."""
    threads: int
    """CPU threads of a forward pass."""
    torch: str
    """Version of PyTorch."""
    ultralytics: str
    """Version of Ultralytics."""


class Inherited(Model):
    """What the student's first weights took from the teacher's."""

    channels: str
    """How the teacher's channels were chosen: activations, index or importance."""
    images: int
    """Most training images that the weights were fitted on; 0: they were copied."""
    share: float
    """Share of the student's parameters, from 0 to 1."""
    tensors: int
    """Parameter tensors, at least in part."""
    of_tensors: int
    """All parameter tensors of the student."""
    left: dict[str, list[str]]
    """Modules and tensors that were left as they were initialized, by reason."""


class Training(Model):
    """How the student was trained."""

    epochs: int
    """Epochs finished."""
    planned: int
    """training.epochs of the job."""
    best_epoch: int
    """Epoch of weights/best.pt, from 1."""
    seconds: float
    """Time of training steps, over all attempts."""
    recipe: dict[str, Any] | None = None
    """The fields of spec that recipe: auto chose; null for other recipes."""
    loss: str | None = None
    """Distillation loss, several joined by +; null without distillation."""
    weight: float | None = None
    """Weight of the distillation loss; null without distillation, and for terms, which have their own."""
    schedule: str | None = None
    """Schedule of the weight; null without distillation."""
    inherited: Inherited | None = None
    """What the first weights took from the teacher's; null if student.init is default."""


class Agreement(Model):
    """Mean agreement of models with the teacher: the share of detections that both have, with a confidence of at least
    0.25, the same class and an IoU of at least 0.5.
    """

    images: int
    """Validation images that were compared, evenly spaced over the split."""
    student: float
    """From 0 to 1."""
    baseline: float | None = None
    """The baseline's; null without one."""


class Attempt(Model):
    """The attempt that finished the run."""

    number: int
    """1: the run was never interrupted."""
    nodes: int
    """Nodes of this attempt."""
    ranks: int
    """torchrun processes of this attempt."""
    seconds: RankSeconds
    """Where rank 0's time went in this attempt, up to the report."""


class Output(Model):
    """An output of the run."""

    name: str
    """Name of the output."""
    files: list[str] = []
    """Files, relative to the run's folder."""
    problem: str | None = None
    """Why the output is missing, in one line; null if it was written."""


class Report(Model):
    """Content of report.json."""

    version: int = VERSION
    """Version of this format."""
    job: str
    """Name of the DistillJob."""
    task: str
    """detect, segment, pose or obb."""
    imgsz: int
    """Image size of validation and measurements."""
    dataset: Dataset
    """The data set of the validation."""
    measured: Measured
    """Where costs were measured."""
    training: Training
    """How the student was trained."""
    attempt: Attempt | None = None
    """The attempt that finished the run; its predecessors are in the status of the DistillJob."""
    agreement: Agreement | None = None
    """Agreement with the teacher; null without a teacher and with training.plots: false."""
    versions: dict[str, str] = {}
    """Versions of the programs that trained and measured, by name."""
    spec: dict[str, Any] = {}
    """The spec of the DistillJob, without null fields and without `template`, which may have credentials."""
    models: dict[ModelRole, ModelReport]
    """By role: student always; teacher and baseline if the job has them."""
    epochs: list[dict[str, float]]
    """Rows of results.csv by column name, without empty columns."""
    outputs: list[Output]
    """Outputs that were written, and those that could not be."""

    def to_json(self) -> bytes:
        """The content of report.json."""
        return self.model_dump_json(by_alias=True, indent=1).encode() + b"\n"


def finite_rows(rows: Sequence[Mapping[str, str]]) -> list[dict[str, float]]:
    """Rows of results.csv as numbers, without empty and non-finite values."""
    return [{name: float(text) for name, text in row.items() if text and math.isfinite(float(text))} for row in rows]
