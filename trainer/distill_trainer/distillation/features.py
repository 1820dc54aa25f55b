"""The features that are compared: the neck's outputs, which are the inputs of the detection head."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def head_inputs(predictions: dict[str, Any]) -> tuple[Tensor, ...]:
    """Neck features [B, C, H, W] by level, out of a Detect-family head's raw training predictions.

    An end-to-end head feeds detached copies to its one-to-one branch, so the one-to-many branch is read.
    """
    return tuple(predictions.get("one2many", predictions)["feats"])
