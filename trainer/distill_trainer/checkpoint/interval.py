"""Chooses the checkpoint interval for `intervalSeconds: auto`.

Young (1974) and Daly (2006, "A higher order estimate of the optimum checkpoint interval for restart dumps") compute it
from the cost of one commit and the mean time between disruptions. Both are measured.
"""

import math
from dataclasses import dataclass

MIN_SECONDS = 5.0
MAX_SECONDS = 600.0
INITIAL_SECONDS = 30.0
"""The interval before the first commit, when the cost is unknown."""
PRIOR_DISRUPTIONS = 1
PRIOR_SECONDS = 3600.0
"""Prior: one disruption per hour, with the weight of one hour of observation."""


@dataclass(frozen=True)
class History:
    """Disruptions and training time of the job so far."""

    disruptions: int
    """Attempts that ended before training was done."""
    seconds: float
    """Training time over all attempts."""

    @property
    def seconds_between_disruptions(self) -> float:
        """Mean time between disruptions: the inverse of the rate's posterior mean under a gamma prior."""
        return (self.seconds + PRIOR_SECONDS) / (self.disruptions + PRIOR_DISRUPTIONS)


def daly_interval(cost: float, between: float) -> float:
    """Optimal seconds between commits of `cost` seconds (C), with `between` seconds between disruptions (M).

    Daly's equation 37: sqrt(2CM) (1 + sqrt(C/2M)/3 + C/18M) - C for C < 2M, else M.
    """
    if cost >= 2 * between:
        return between
    ratio = cost / (2 * between)
    return math.sqrt(2 * cost * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def auto_interval(cost: float | None, history: History) -> float:
    """The interval in seconds for `intervalSeconds: auto`. `cost`: training seconds lost per commit; None: unknown."""
    if cost is None:
        return INITIAL_SECONDS
    return min(MAX_SECONDS, max(MIN_SECONDS, daly_interval(cost, history.seconds_between_disruptions)))
