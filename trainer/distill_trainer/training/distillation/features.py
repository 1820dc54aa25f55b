"""What teacher and student each saw in a batch: all that a distillation loss may compare."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor

_BRANCHES = ("one2many", "one2one")


class ModelOutput(NamedTuple):
    """One model's view of a batch."""

    features: tuple[Tensor, ...]
    """Neck features [B, C, H, W] by level, the inputs of the detection head."""
    logits: tuple[tuple[Tensor, ...], ...]
    """Class logits [B, nc, H, W] by level, for each branch of the head: one-to-many, then one-to-one if it has one."""
    ready: torch.cuda.Event | None = None
    """When the tensors are written, if that is on a CUDA stream of its own."""

    def synchronize(self) -> ModelOutput:
        """The same, for use on the current stream, which waits for the tensors; the host does not."""
        if self.ready is None:
            return self
        stream = torch.cuda.current_stream(self.features[0].device)
        stream.wait_event(self.ready)
        for tensor in (*self.features, *chain.from_iterable(self.logits)):
            tensor.record_stream(stream)  # its memory is not given away before this stream is done with it
        return self._replace(ready=None)


def model_output(predictions: dict[str, Any]) -> ModelOutput:
    """What a Detect-family model saw, out of its head's raw training predictions.

    An end-to-end head feeds detached copies to its one-to-one branch, so features are the one-to-many branch's.
    """
    branches = [predictions[name] for name in _BRANCHES if name in predictions] or [predictions]
    features = tuple(branches[0]["feats"])
    return ModelOutput(features, tuple(_by_level(branch["scores"], features) for branch in branches))


def _by_level(scores: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """[B, nc, sum of H x W] -> [B, nc, H, W] by level."""
    sizes = [feature.shape[-2:] for feature in features]
    parts = scores.split([height * width for height, width in sizes], dim=-1)
    return tuple(part.unflatten(-1, tuple(size)) for part, size in zip(parts, sizes, strict=True))
