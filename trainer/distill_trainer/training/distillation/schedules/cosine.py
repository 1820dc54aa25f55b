"""cosine: the weight falls slowly, then fast, then slowly to zero."""

from __future__ import annotations

import math


def cosine(progress: float) -> float:
    """Factor of the weight at `progress`, from 0 to 1, towards the end of distillation: half a period, from 1 to 0."""
    return (1 + math.cos(math.pi * progress)) / 2
