"""The features and logits of teacher and student that distillation losses compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BRANCHES = ("one2many", "one2one")


class ModelOutput(NamedTuple):
    """Features and class logits of one model for a batch."""

    features: tuple[Tensor, ...]
    """Neck features [B, C, H, W] by level, the inputs of the detection head."""
    logits: tuple[tuple[Tensor, ...], ...]
    """Class logits [B, nc, H, W] by level, for each branch of the head: one-to-many, then one-to-one if it has one."""
    ready: torch.cuda.Event | None = None
    """Recorded after the tensors are written, if they are computed on another CUDA stream."""

    def synchronize(self) -> ModelOutput:
        """Make the current CUDA stream wait for the tensors, and return them for use on it. Does not block the host."""
        if self.ready is None:
            return self
        stream = torch.cuda.current_stream(self.features[0].device)
        stream.wait_event(self.ready)
        for tensor in (*self.features, *chain.from_iterable(self.logits)):
            tensor.record_stream(stream)  # the allocator must not reuse its memory before this stream is done
        return self._replace(ready=None)


def model_output(predictions: dict[str, Any]) -> ModelOutput:
    """The ModelOutput of a Detect-family model, from its head's raw training predictions.

    Features are those of the one-to-many branch: the one-to-one branch of an end-to-end head gets detached copies.
    """
    branches = [predictions[name] for name in _BRANCHES if name in predictions] or [predictions]
    features = tuple(branches[0]["feats"])
    return ModelOutput(features, tuple(_by_level(branch["scores"], features) for branch in branches))


def _by_level(scores: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """[B, nc, sum of H x W] -> [B, nc, H, W] by level."""
    sizes = [feature.shape[-2:] for feature in features]
    parts = scores.split([height * width for height, width in sizes], dim=-1)
    return tuple(part.unflatten(-1, tuple(size)) for part, size in zip(parts, sizes, strict=True))
