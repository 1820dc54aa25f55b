"""When distillation ends."""

from __future__ import annotations

from distill_api.spec.fields import Until


def end_step(until: Until | None, *, epochs: int, steps_per_epoch: int, close_mosaic: int) -> int:
    """First step, from 0, that is trained without the teacher; that of the run's end if `until` is None.

    `close_mosaic` is the number of last epochs without mosaic. A fraction is rounded to the nearest step, at least one.
    """
    total = epochs * steps_per_epoch
    if until is None:
        return total
    if until.epochs is not None:
        return min(until.epochs * steps_per_epoch, total)
    if until.fraction is not None:
        return max(1, round(until.fraction * total))
    return (epochs - close_mosaic) * steps_per_epoch
