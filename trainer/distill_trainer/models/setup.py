"""Loads and checks a job's data set, student and teacher. Needs no accelerator and no other rank."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.pod.run import Directories
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.training import Training
from distill_trainer.data import DatasetInfo, load_dataset
from distill_trainer.models import pair
from distill_trainer.models.arguments import rounded_imgsz, ultralytics_arguments
from distill_trainer.models.loading import check_sha256, find_model_file, load_checkpoint
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

    def release_teacher(self) -> None:
        """Free the full teacher's memory, after the Teacher has been built from it."""
        self.teacher = None


def prepare(spec: DistillJobSpec, directories: Directories, beat: Callable[[str], None] = lambda _: None) -> Prepared:
    """Load and check the data set and the models. Raises Permanent.

    `beat` is called with the name of each phase before it starts.
    """
    beat("loading the student")
    models = Path(directories.models) if directories.models is not None else None
    data = Path(directories.data)
    source = student_source(models, spec.student.model, trust_pickle=spec.student.trust_pickle)
    task = source[2]
    beat("finding the data set")
    dataset = load_dataset(data / spec.dataset.config, data, task, single_cls=spec.training.single_cls)
    beat("building the student")
    arguments = ultralytics_arguments(spec, task, spec.training.imgsz)
    student = build_student(source, dataset, arguments, spec.training.seed)
    stride = grid_size(student)
    arguments.imgsz = rounded_imgsz(spec.training.imgsz, stride)
    for line in adjustments(spec.training, arguments.imgsz, stride):
        log.info("%s", line)
    teacher, digest = None, None
    if spec.teacher is not None:
        beat("loading the teacher")
        path = find_model_file(models or Path(), spec.teacher.model)
        digest = check_sha256(path, spec.teacher.sha256)
        teacher = load_checkpoint(path, trust_pickle=spec.teacher.trust_pickle)
        pair.check(
            pair.facts(student, spec.student.model),
            pair.facts(teacher, spec.teacher.model),
            spec.distillation.allow_cross_family,
        )
    return Prepared(dataset, student, teacher, digest, arguments, task, arguments.imgsz, stride)


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
