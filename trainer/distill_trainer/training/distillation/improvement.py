"""Distillation ends when an epoch hardly improves its loss: spec.distillation.until.minImprovement."""

from __future__ import annotations

import math
from collections.abc import Sequence


def ends(before: float | None, now: float | None, least: float | None) -> bool:
    """Whether distillation ends after an epoch with mean loss `now`: it is not less than `before`, the epoch before's,
    by the part `least`. What is not finite decides nothing; neither does the first epoch.
    """
    part = improvement(before, now)
    return least is not None and part is not None and part < least


def improvement(before: float | None, now: float | None) -> float | None:
    """The part by which the loss has fallen; negative if it has risen; None if that cannot be told."""
    if before is None or now is None or not (math.isfinite(before) and math.isfinite(now)) or before <= 0:
        return None
    return 1 - now / before


def evidence(epoch: int, before: float | None, now: float | None, cosines: Sequence[float]) -> str:
    """What is known at the end of an epoch, counted from 1, for the log."""
    part = improvement(before, now)
    text = f"distillation loss {now:.4g} in epoch {epoch}" if now is not None else f"no distillation loss in {epoch}"
    if part is not None:
        text += f", {abs(part):.1%} {'less' if part >= 0 else 'more'} than in the epoch before"
    if cosines:
        values = ", ".join(f"{value:+.2f}" for value in cosines)
        text += f"; cosine of its gradient and the task's at the neck, by level: {values}"
    return text
