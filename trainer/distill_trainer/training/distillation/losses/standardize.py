"""Features without their scale: what is compared is where a channel responds, not how strongly."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import batch_norm


def standardise(feature: Tensor) -> Tensor:
    """Each channel of [B, C, H, W] with mean 0 and variance 1 over batch and locations, in fp32.

    A BatchNorm without weights and without running statistics. A channel of a single value has no variance: it is 0.
    """
    feature = feature.float()
    if feature.shape[0] * feature.shape[2] * feature.shape[3] == 1:
        return feature * 0.0  # a product, so that the projector still has its part in the gradient
    return batch_norm(feature, None, None, training=True)
