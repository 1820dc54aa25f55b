"""How the weight of the distillation loss changes over the run: pure functions of the progress."""

from __future__ import annotations

from collections.abc import Callable, Mapping

WeightSchedule = Callable[[int, int], float]
"""(step, total steps) -> factor of the job's weight."""


def constant(_step: int, _total_steps: int) -> float:
    """The same weight from the first step to the last."""
    return 1.0


SCHEDULES: Mapping[str, WeightSchedule] = {"constant": constant}
