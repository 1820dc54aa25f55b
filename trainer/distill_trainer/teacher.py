"""The frozen teacher, cut to what distillation reads: backbone, neck and the classification branches of the head."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel

from distill_trainer.distillation.features import Seen
from distill_trainer.int8 import Ranged, to_int8
from distill_trainer.packed import pack, packable

log = logging.getLogger(__name__)


class _ClassBranches(nn.Module):
    """Stands in for a Detect-family head: boxes, masks, keypoints and decoding are never computed."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.f, self.i = head.f, head.i  # where BaseModel's forward finds the inputs
        one2one = getattr(head, "one2one_cv3", None)
        self.branches = nn.ModuleList([head.cv3] if one2one is None else [head.cv3, one2one])

    def forward(self, features: list[Tensor]) -> Seen:
        logits = ([level(feature) for level, feature in zip(branch, features, strict=True)] for branch in self.branches)
        return Seen(_exact(features), tuple(_exact(levels) for levels in logits))


def _exact(tensors: Iterable[Tensor | Ranged]) -> tuple[Tensor, ...]:
    return tuple(tensor.exact() if isinstance(tensor, Ranged) else tensor for tensor in tensors)


def _differences(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> list[tuple[float, float]]:
    """Squared norms by level: of the difference, and of what is wanted."""
    return [(float((a - b).square().sum()), float(b.square().sum())) for a, b in zip(found, wanted, strict=True)]


def _relative(squares: Sequence[tuple[float, float]]) -> float:
    off, whole = (sum(part) for part in zip(*squares, strict=True))
    return math.sqrt(off / whole) if whole else 0.0


class Teacher(BaseModel):
    """A frozen model that maps images to what it sees in them; convolutions and BatchNorm fused, channels-last.

    It is a plain object beside the trained modules: never inside DDP, an optimizer or a state_dict.
    """

    def __init__(self, model: Any, device: torch.device, dtype: torch.dtype) -> None:
        """Cut a deep copy of `model` (a Detect-family model that the pair check accepted) for `device` and `dtype`."""
        super().__init__()
        layers = deepcopy(model.model)
        self.model = nn.Sequential(*layers[:-1], _ClassBranches(layers[-1]))
        self.save = model.save
        self.yaml = model.yaml
        self.fuse(verbose=False)
        self.eval().requires_grad_(False)
        self.to(device=device, dtype=dtype, memory_format=torch.channels_last)
        self.dtype = dtype
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    def train(self, mode: bool = True) -> Teacher:  # noqa: ARG002  (the signature is nn.Module's)
        """Stays in eval mode whatever is asked: batch statistics of a frozen model are frozen too."""
        return super().train(False)

    def quantise(self, samples: Sequence[Tensor], batch: int) -> list[float]:
        """Compute in 8 bits from now on, with ranges that hold what `samples` make: images [B, 3, H, W] in [0, 1].

        Fastest with `batch` images of this size. Returns how far features are off, by level: the norm of the difference
        over the norm, for the first few samples. The teacher has to be on the CPU in fp32.
        """
        looked_at = samples[:4]
        wanted = [self.look(images).features for images in looked_at]
        to_int8(self, self.look, samples, batch)
        found = [self.look(images).features for images in looked_at]
        return [_relative(level) for level in zip(*map(_differences, found, wanted), strict=True)]

    def pack(self, images: Sequence[int]) -> None:
        """Be faster from now on, fastest with images of this shape [B, C, H, W]; the teacher has to be `packable`."""
        pack(self, self.look, images)

    @torch.no_grad()  # not inference_mode: the student's backward pass saves these features
    def look(self, images: Tensor) -> Seen:
        """Features and class logits for images [B, 3, H, W] in [0, 1], in the teacher's own dtype.

        On CUDA the work is queued on a stream of its own, beside the student's forward pass; see `Seen.arrived`.
        """
        if self._stream is None:
            return self._see(images)
        self._stream.wait_stream(torch.cuda.current_stream(images.device))
        with torch.cuda.stream(self._stream):
            seen = self._see(images)
            images.record_stream(self._stream)
            return seen._replace(ready=self._stream.record_event())

    def _see(self, images: Tensor) -> Seen:
        images = images.to(dtype=self.dtype, memory_format=torch.channels_last)
        with torch.autocast(images.device.type, enabled=False):
            seen: Seen = self(images)  # through __call__, which is what compile() replaces
        return seen


def cut_teacher(
    model: Any,
    device: torch.device,
    dtype: torch.dtype,
    images: Sequence[int],
    samples: Callable[[], Sequence[Tensor]],
    compiled: bool,
) -> Teacher:
    """The teacher of `model` in the format that `teacher_dtype` has chosen, for `images` of this shape [B, C, H, W].

    `samples` makes images if the format is int8. `compiled` has no effect on one in int8, whose convolutions are
    oneDNN's own; others on CPUs have those of oneDNN unless they are compiled.
    """
    if dtype is torch.int8:
        teacher = Teacher(model, device, torch.float32)
        apart = teacher.quantise(samples(), images[0])
        log.info("the teacher computes in int8; its features are %s off", " / ".join(f"{x:.1%}" for x in apart))
        return teacher
    teacher = Teacher(model, device, dtype)
    if compiled:
        teacher.compile()
    elif packable(device, dtype):
        teacher.pack(images)
    return teacher
