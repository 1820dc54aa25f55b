"""Loads and checks a job's data set, student and teacher. Needs no accelerator and no other rank."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.errors import Permanent
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo
from distill_trainer.data.config import DatasetConfig, read_dataset
from distill_trainer.data.labels.opening import scan_dataset
from distill_trainer.models import pair
from distill_trainer.models.arguments import rounded_imgsz, ultralytics_arguments
from distill_trainer.models.inherit.channels import NotSliceable
from distill_trainer.models.inherit.weights import Inheritance, Inherited
from distill_trainer.models.loading import find_model_file, load_verified
from distill_trainer.models.student import build_student, grid_size, student_source

log = logging.getLogger(__name__)


@dataclass
class Prepared:
    """A job's data set and models, checked. Models are on the CPU, in fp32."""

    dataset: DatasetInfo
    student: Any
    teacher: Any | None
    teacher_sha256: str | None
    arguments: Any
    """Ultralytics' argument namespace; also the student's `args`."""
    task: str
    imgsz: int
    """Image size, rounded up to a multiple of `stride`."""
    stride: int
    inherited: Inherited | None = None
    """What the student's first weights take from the teacher's; None if student.init is default."""

    def release_teacher(self) -> None:
        """Free the full teacher's memory, after the Teacher has been built from it."""
        self.teacher = None


def prepare(
    spec: DistillJobSpec,
    directories: Directories,
    beat: Callable[[str], None] = lambda _: None,
    open_labels: Callable[[DatasetConfig], DatasetInfo] = scan_dataset,
) -> Prepared:
    """Load and check the data set and the models. Raises Permanent.

    `beat` is called with the name of each phase before it starts. `open_labels` opens the data set, when all else has
    been checked: other ranks may have to wait meanwhile.
    """
    beat("loading the student")
    models = Path(directories.models) if directories.models is not None else None
    data = Path(directories.data)
    source = student_source(models, spec.student.model, trust_pickle=spec.student.trust_pickle)
    task = source[2]
    beat("reading the data set's configuration")
    more = spec.dataset.unlabelled.images if spec.dataset.unlabelled is not None else None
    config = read_dataset(
        data / spec.dataset.config,
        data,
        task,
        single_cls=spec.training.single_cls,
        fraction=spec.training.fraction,
        unlabelled=more,
    )
    beat("building the student")
    arguments = ultralytics_arguments(spec, task, spec.training.imgsz)
    student = build_student(source, config, arguments, spec.training.seed)
    stride = grid_size(student)
    arguments.imgsz = rounded_imgsz(spec.training.imgsz, stride)
    for line in adjustments(spec.training, arguments.imgsz, stride):
        log.info("%s", line)
    teacher, digest, inherited = None, None, None
    if spec.teacher is not None:
        beat("loading the teacher")
        path = find_model_file(models or Path(), spec.teacher.model)
        teacher, digest = load_verified(path, spec.teacher.sha256, trust_pickle=spec.teacher.trust_pickle)
        pair.check(
            pair.facts(student, spec.student.model),
            pair.facts(teacher, spec.teacher.model),
            spec.distillation.allow_cross_family,
        )
        if spec.student.init == "inherit":
            inherited = check_inheritance(student, teacher, spec)
    dataset = open_labels(config)
    return Prepared(dataset, student, teacher, digest, arguments, task, arguments.imgsz, stride, inherited)


def check_inheritance(student: Any, teacher: Any, spec: DistillJobSpec) -> Inherited:
    """What the student can inherit. Raises Permanent(PairMismatch) if nothing corresponds. Changes nothing."""
    name = spec.teacher.model if spec.teacher is not None else ""
    try:
        inherited = Inheritance.of(student, teacher).summary()
    except NotSliceable as why:
        raise _not_inherited(spec.student.model, name, str(why)) from why
    if inherited.parameters == 0:
        raise _not_inherited(spec.student.model, name, "; ".join(inherited.reasons()))
    if spec.student.model.endswith(".pt"):
        log.info("student.init is inherit: weights of teacher %s replace those of %s", name, spec.student.model)
    for line in inherited.lines():
        log.info("first weights from teacher %s, channels by %s: %s", name, spec.student.inherit.channels, line)
    return inherited


def _not_inherited(student: str, teacher: str, why: str) -> Permanent:
    return Permanent(
        Reason.PAIR_MISMATCH,
        f"student {student} cannot inherit weights from teacher {teacher}: {why}; choose a teacher of the student's "
        "architecture in another size, or leave out student.init",
    )


def adjustments(training: Training, imgsz: int, stride: int) -> list[str]:
    """Settings of the job that are adjusted, as in Ultralytics: one line for each."""
    lines = []
    if imgsz != training.imgsz:
        lines.append(
            f"training.imgsz {training.imgsz} is not a multiple of {stride}, the model's largest stride; using {imgsz}"
        )
    if training.mosaic > 0 and 0 < training.epochs <= training.close_mosaic:
        lines.append(
            f"training.close_mosaic {training.close_mosaic} is not less than training.epochs {training.epochs}; mosaic "
            "is disabled"
        )
    return lines
