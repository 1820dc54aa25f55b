"""Standardizes features, so that losses compare where a channel responds, not how strongly."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import batch_norm


def standardize(feature: Tensor) -> Tensor:
    """Scale each channel of [B, C, H, W] to mean 0 and variance 1 over batch and locations, in fp32.

    This is a BatchNorm without weights and running statistics. A channel with a single value becomes 0.
    """
    feature = feature.float()
    if feature.shape[0] * feature.shape[2] * feature.shape[3] == 1:
        return feature * 0.0  # keeps the projector in the autograd graph
    return batch_norm(feature, None, None, training=True)
