"""constant: the same weight until distillation ends."""

from __future__ import annotations


def constant(_progress: float) -> float:
    """Factor of the weight at `progress`, from 0 to 1, towards the end of distillation."""
    return 1.0
