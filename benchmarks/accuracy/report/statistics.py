"""Paired differences between arms, with the confidence interval of Student's t. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from scipy.stats import t as student_t

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """An arm minus another one, over the seeds that both have."""

    arm: str
    other: str
    mean: float
    other_mean: float
    differences: dict[int, float]
    """By seed."""
    interval: tuple[float, float] | None
    """Of the mean difference; None with fewer than two seeds."""

    @property
    def difference(self) -> float:
        """Mean difference."""
        return self.mean - self.other_mean

    @property
    def interval_text(self) -> str:
        """The interval for a table."""
        return "one seed: none" if self.interval is None else f"{self.interval[0]:+.3f} to {self.interval[1]:+.3f}"


def mean_interval(values: list[float], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Confidence interval of the mean of normally distributed values; None for fewer than two."""
    if len(values) < 2:
        return None
    middle, error = statistics.fmean(values), statistics.stdev(values) / math.sqrt(len(values))
    reach = float(student_t.ppf(0.5 + confidence / 2, len(values) - 1)) * error
    return middle - reach, middle + reach


def paired(arm: str, values: Mapping[int, float], other: str, others: Mapping[int, float]) -> Difference:
    """Compare two arms by their values by seed. Raises ValueError if they have no seed in common."""
    seeds = sorted(values.keys() & others.keys())
    if not seeds:
        raise ValueError(f"{arm} and {other} have no seed in common")
    differences = {seed: values[seed] - others[seed] for seed in seeds}
    return Difference(
        arm,
        other,
        statistics.fmean(values[seed] for seed in seeds),
        statistics.fmean(others[seed] for seed in seeds),
        differences,
        mean_interval(list(differences.values())),
    )
