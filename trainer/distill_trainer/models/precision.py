"""The number formats of the student and the teacher: what `auto` stands for, and that a run keeps it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final

import torch

from distill_api.spec.fields import DistillJobSpec
from distill_trainer.models.speed import computes, seconds_by_format

DTYPES: Final = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
WORTHWHILE: Final = 1.25
"""How many times as fast as fp32 a 16-bit format must be for the teacher. A clear margin: two measurements on one
machine decide alike."""
STUDENT, TEACHER = "training.amp", "teacher.precision"

SecondsByFormat = Callable[[torch.device, Sequence[torch.dtype]], Sequence[float]]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Precision:
    """The precision of the student's forward pass: `dtype` None is fp32 without autocast."""

    device_type: str
    dtype: torch.dtype | None

    @classmethod
    def of(cls, name: str, device: torch.device) -> Precision:
        """The precision of a format of DTYPES on `device`."""
        return cls(device.type, None if name == "fp32" else DTYPES[name])

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast for the student's forward pass and losses."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler; enabled only for fp16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


@dataclass(frozen=True)
class Formats:
    """The number formats of a run, by their names in DTYPES."""

    student: str
    teacher: str = "fp32"
    auto: Mapping[str, str] = field(default_factory=dict)
    """What auto stands for, by field of spec. The run's checkpoints keep it."""

    @property
    def teacher_dtype(self) -> torch.dtype:
        """The dtype in which the teacher computes."""
        return DTYPES[self.teacher]

    def validates_in_half(self, device: torch.device) -> bool:
        """Whether models are validated in fp16."""
        return device.type == "cuda" and self.student != "fp32"


def choose_formats(
    spec: DistillJobSpec,
    device: torch.device,
    kept: Mapping[str, str] | None = None,
    measure: SecondsByFormat = seconds_by_format,
) -> Formats:
    """The formats for `training.amp` and `teacher.precision`. Measures at most one second; only rank 0 calls this.

    `kept`: what auto stood for in the checkpoint from which the run resumes, which holds as long as the device can
    compute it: the steps that follow are computed like those before, on whatever machine.
    """
    auto: dict[str, str] = {}

    def chosen(name: str, asked: str, choose: Callable[[], str]) -> str:
        if asked != "auto":
            return asked
        auto[name] = _kept(name, (kept or {}).get(name), device) or choose()
        return auto[name]

    student = chosen(STUDENT, spec.training.amp, lambda: student_format(device))
    if spec.teacher is None:
        return Formats(student, auto=auto)
    teacher = chosen(TEACHER, spec.teacher.precision, lambda: teacher_format(device, measure))
    return Formats(student, teacher, auto)


def student_format(device: torch.device) -> str:
    """What training.amp auto stands for: on CUDA the device's 16-bit format; fp32 on CPUs, as in Ultralytics."""
    return narrow_format(device) if device.type == "cuda" else "fp32"


def use_fast_kernels() -> None:
    """For training.deterministic false on CUDA: cuDNN times its kernels for each new shape and takes the fastest one,
    and products of fp32 matrices are computed in TF32, as cuDNN's convolutions are by default.
    """
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")


def narrow_format(device: torch.device) -> str:
    """The 16-bit format of a device: bf16, which needs no loss scaling, and fp16 on GPUs before Ampere."""
    old_gpu = device.type == "cuda" and torch.cuda.get_device_capability(device)[0] < 8
    return "fp16" if old_gpu else "bf16"


def teacher_format(device: torch.device, measure: SecondsByFormat = seconds_by_format) -> str:
    """What teacher.precision auto stands for: the 16-bit format where it is WORTHWHILE, because the teacher has no
    gradients; else fp32.
    """
    narrow = narrow_format(device)
    full, half = measure(device, [DTYPES["fp32"], DTYPES[narrow]])
    faster = full / half
    name = narrow if faster >= WORTHWHILE else "fp32"
    log.info(
        "teacher.precision auto stands for %s in this run: its convolutions take %.1f ms in fp32 and %.1f ms in %s "
        "here, and from %.2f times as fast on %s is used",
        *(name, 1000 * full, 1000 * half, narrow, WORTHWHILE, narrow),
    )
    return name


def _kept(name: str, kept: str | None, device: torch.device) -> str | None:
    """`kept`, if the device can compute in it."""
    if kept is None:
        return None
    if kept in DTYPES and computes(device, DTYPES[kept]):
        log.info("%s auto stands for %s, as when the run began", name, kept)
        return kept
    log.warning(
        "%s auto stood for %s until now, which this machine cannot compute: another format is chosen, and results "
        "differ from those of an uninterrupted run; to avoid this, run the job on machines of one kind",
        *(name, kept),
    )
    return None
