"""Checks a job as far as one process without accelerators can, and says what it found."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import numpy as np

from distill_api.errors import Permanent
from distill_api.pod.report import WARNING
from distill_api.reading.mistakes import listed
from distill_trainer.checkpoint.format import layout
from distill_trainer.data import DatasetInfo
from distill_trainer.data.loading.order import SampleSpec
from distill_trainer.models.precision import Formats
from distill_trainer.process.run_files import RunFiles
from distill_trainer.training.build import (
    Saved,
    Setup,
    build_distillation,
    build_plan,
    build_step,
    build_train_data,
    build_val_data,
    resume,
)
from distill_trainer.training.evaluation.comparison import load_baseline

log = logging.getLogger(__name__)

_MAX_LISTED = 5
"""Most classes that a line lists."""


def check(setup: Setup) -> str:
    """Build everything that a step needs, read one image of each split, and return what was found, in one line.

    The volumes, the labels and the pair were checked when `setup` was made. Raises Permanent.
    """
    context, prepared = setup.context, setup.prepared
    data = build_train_data(setup)
    with closing(build_val_data(setup)) as val_data:
        plan = build_plan(setup, data)
        formats = Formats("fp32")
        distillation = build_distillation(setup, plan, formats)
        context.watchdog.beat("building the models")
        pair = _models(setup)
        state, schedule = resume(setup, plan, distillation, Saved(None, formats))
        build_step(setup, plan, distillation, formats, state, schedule)
        context.watchdog.beat("reading an image of each split")
        data.dataset[SampleSpec(epoch=0, position=0, index=0, mosaic=False, pool=())]
        val_data.dataset[0]
    dataset = prepared.dataset
    found = [
        f"{pair}; {prepared.task}, {_count(dataset.nc, 'class', 'classes')}",
        f"{len(dataset.train):,} training and {_count(len(dataset.val), 'validation image')}",
        f"{_count(plan.steps_per_epoch, 'step')} in an epoch",
    ]
    if dataset.unlabelled is not None:
        found.insert(2, _count(len(dataset.unlabelled), "unlabelled image"))
    warnings = list(_warnings(setup))
    for line in warnings:
        log.warning("%s", line)
    return WARNING.join([", ".join(found), *warnings])


@contextmanager
def leaving_nothing(files: RunFiles) -> Iterator[None]:
    """Delete what a check has made in the job's folder. What was there before, such as a checkpoint, stays."""
    try:
        yield
    finally:
        if not (layout.committed_steps(files.checkpoints) or layout.damaged_steps(files.checkpoints)):
            for made in (files.checkpoints, files.labels, files.compiled):
                shutil.rmtree(made, ignore_errors=True)
            with suppress(OSError):  # it has something else
                files.root.rmdir()


def _models(setup: Setup) -> str:
    spec, prepared = setup.spec, setup.prepared
    student = f"{spec.student.model} ({_parameters(prepared.student)})"
    if spec.teacher is None:
        return f"{student} has no teacher"
    return f"{student} can learn from {spec.teacher.model} ({_parameters(prepared.teacher)})"


def _parameters(model: Any) -> str:
    return f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.1f} M parameters"


def _count(number: int, what: str, plural: str = "") -> str:
    return f"{number:,} {what if number == 1 else plural or f'{what}s'}"


def _warnings(setup: Setup) -> Iterator[str]:
    """What is allowed and most often not meant."""
    dataset = setup.prepared.dataset
    for split in ("train", "val"):
        if unseen := _classes_without_labels(dataset, split):
            yield f"no label of {split} has the class {listed(unseen, _MAX_LISTED)}"
    if (name := setup.spec.report.baseline) is not None:
        try:
            load_baseline(setup.run.directories, name, setup.prepared)
        except Permanent as error:
            yield error.message


def _classes_without_labels(dataset: DatasetInfo, split: str) -> list[str]:
    seen = set(np.unique(getattr(dataset, split).classes).astype(int).tolist())
    return [name for number, name in dataset.names.items() if number not in seen]
