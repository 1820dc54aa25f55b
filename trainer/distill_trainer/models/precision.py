"""The numeric precision of the student and the teacher."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Precision:
    """The precision of the student's forward pass: `dtype` None is fp32 without autocast."""

    device_type: str
    dtype: torch.dtype | None

    def autocast(self) -> AbstractContextManager[None]:
        """Autocast for the student's forward pass and losses."""
        return torch.autocast(self.device_type, dtype=self.dtype, enabled=self.dtype is not None)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaler; enabled only for fp16."""
        return torch.amp.GradScaler(self.device_type, enabled=self.dtype is torch.float16)


def student_precision(amp: str, device: torch.device) -> Precision:
    """The Precision for `training.amp`. auto: on CUDA bf16 from Ampere on, which needs no loss scaling, else fp16 as
    in Ultralytics; fp32 on CPUs.
    """
    if amp == "auto":
        return Precision(device.type, _narrow(device) if device.type == "cuda" else None)
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}[amp]
    return Precision(device.type, dtype)


def _narrow(device: torch.device) -> torch.dtype:
    """The 16-bit format of a CUDA device."""
    return torch.bfloat16 if torch.cuda.get_device_capability(device)[0] >= 8 else torch.float16


def use_fast_kernels() -> None:
    """For training.deterministic false on CUDA: cuDNN times its kernels for each new shape and takes the fastest one,
    and products of fp32 matrices are computed in TF32, as cuDNN's convolutions are by default.
    """
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")


def teacher_dtype(precision: str, device: torch.device, cpuinfo: Path = _CPUINFO) -> torch.dtype:
    """The dtype for `teacher.precision`.

    auto: the narrowest format that the hardware multiplies natively, because the teacher has no gradients. On CUDA bf16
    from Ampere on, else fp16. On CPUs bf16 with AMX, else fp32: with AVX512_BF16 alone, convolutions are slower than in
    fp32.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]
    if device.type == "cuda":
        return _narrow(device)
    return torch.bfloat16 if "amx_bf16" in _flags(cpuinfo) else torch.float32


def _flags(cpuinfo: Path) -> set[str]:
    try:
        return set(cpuinfo.read_text().split())
    except OSError:
        return set()
