"""Converts the arguments of distill() to a DistillJob."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.constants import JOB_NAME_LENGTH
from distill_api.errors import Permanent
from distill_api.job import DistillJob, InvalidJob, parse_job, read_job
from distill_api.reading.mistakes import nearest
from distill_api.reasons import Reason
from distill_api.spec.training import Training

PathLike = str | os.PathLike[str]

RESULTS, DATA, MODELS = "results", "data", "models"
"""Claim names in the job of a call."""


@dataclass(frozen=True)
class Call:
    """The arguments of distill() that define the run; None if not given."""

    student: PathLike | None = None
    teacher: PathLike | None = None
    data: PathLike | None = None
    name: str | None = None
    shards: int | None = None
    dis: float | None = None
    distillation: Mapping[str, Any] | None = None
    trust_pickle: bool = False
    teacher_precision: str | None = None
    init: str | None = None
    recipe: str | None = None
    training: Mapping[str, Any] | None = None

    def given(self) -> list[str]:
        """Names of the given arguments."""
        given = [name for name, value in vars(self).items() if value not in (None, False) and name != "training"]
        return given + list(self.training or {})


def load_job(job: PathLike | Mapping[str, Any], device: str | None) -> DistillJob:
    """Load a job from a YAML file or a dictionary, and override its device if one is given. Raises Permanent."""
    try:
        if isinstance(job, Mapping):
            found = parse_job(dict(job))
        else:
            found = read_job(Path(job).expanduser().read_text(encoding="utf-8"))
        if device is None:
            return found
        spec = found.spec.to_wire() | {"device": device}
        return parse_job({"metadata": found.metadata.to_wire(), "spec": spec})
    except InvalidJob as error:
        raise invalid("; ".join(str(error).splitlines())) from None
    except (OSError, UnicodeDecodeError) as error:
        raise invalid(f"cannot read the job file {job}: {error}") from None


def job_of(call: Call, *, cuda_devices: int, processes: int | None, arguments: list[str]) -> DistillJob:
    """The job for a call, with one shard per process unless `call.shards` is given.

    `arguments`: names of distill()'s other arguments, for suggestions. Raises Permanent, naming the invalid argument.
    """
    training = dict(call.training or {})
    _check_names(training, arguments)
    if call.student is None or call.data is None:
        missing = [name for name in ("student", "data") if getattr(call, name) is None]
        raise invalid(f"distill() needs {' and '.join(missing)}, or a job")
    shards = call.shards or processes or max(1, cuda_devices)
    batch = training.get("batch", Training().batch)
    if isinstance(batch, int) and batch % shards:
        raise invalid(f"batch {batch} is not divisible by {shards} {'shards' if call.shards else 'processes'}")
    distillation = dict(call.distillation or {}) | ({"weight": call.dis} if call.dis is not None else {})
    spec: dict[str, Any] = {
        "student": {"model": _student(call.student), "trustPickle": call.trust_pickle},
        "dataset": {"config": _file(call.data, "data", Reason.DATASET_INVALID)},
        "distillation": distillation,
        "training": training,
        "accelerators": {"perNode": shards} if cuda_devices else {"perNode": 0, "processesPerNode": shards},
        "device": "cuda" if cuda_devices else "cpu",
        "volumes": {
            "checkpoints": {"claimName": RESULTS},
            "data": {"claimName": DATA},
            "models": {"claimName": MODELS},
        },
    }
    if call.init is not None:
        spec["student"]["init"] = call.init
    if call.recipe is not None:
        spec["recipe"] = call.recipe
    if call.teacher is not None:
        teacher = _file(call.teacher, "teacher", Reason.MODEL_NOT_FOUND)
        spec["teacher"] = {"model": teacher, "trustPickle": call.trust_pickle}
        if call.teacher_precision is not None:
            spec["teacher"]["precision"] = call.teacher_precision
    try:
        return parse_job({"metadata": {"name": call.name or _job_name(call.student)}, "spec": spec})
    except InvalidJob as error:
        lines = (re.sub(r"^(spec(\.training)?|metadata)(\.|: )", "", line) for line in str(error).splitlines())
        raise invalid("; ".join(lines)) from None


def invalid(message: str) -> Permanent:
    """The error for an invalid call of distill()."""
    return Permanent(Reason.CONFIG_INVALID, message)


def _check_names(training: Mapping[str, Any], arguments: list[str]) -> None:
    known = [*Training.model_fields, *arguments]
    for name in training:
        if name not in known:
            similar = nearest(name, known)
            hint = f"; did you mean {' or '.join(similar)}?" if similar else ""
            raise invalid(f"distill() has no argument {name}{hint}")


def _student(student: PathLike) -> str:
    """The name of an Ultralytics architecture, or the file's path relative to the root directory."""
    text = os.fspath(student)
    is_architecture = text.endswith((".yaml", ".yml")) and os.sep not in text
    if is_architecture and not Path(text).is_file():
        return text
    return _file(student, "student", Reason.MODEL_NOT_FOUND)


def _file(path: PathLike, argument: str, reason: Reason) -> str:
    """The file's path relative to the root directory."""
    absolute = os.path.abspath(Path(path).expanduser())
    if not Path(absolute).is_file():
        raise Permanent(reason, f"{argument} {os.fspath(path)} does not exist ({absolute}); files are never downloaded")
    return absolute.lstrip(os.sep)


def _job_name(student: PathLike) -> str:
    name = re.sub(r"[^a-z0-9]+", "-", Path(student).stem.lower()).strip("-")[:JOB_NAME_LENGTH].strip("-")
    return name if name[:1].isalpha() else f"run-{name}"[:JOB_NAME_LENGTH].strip("-")
