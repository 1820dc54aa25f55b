"""How often to commit: often enough to lose little, seldom enough to cost little.

Young (1974) and Daly (2006, "A higher order estimate of the optimum checkpoint interval for restart dumps") find the
interval from two numbers: what one commit costs, and how often the job is disrupted. Both are measured here.
"""

import math
from dataclasses import dataclass

LEAST_SECONDS = 5.0
MOST_SECONDS = 600.0
FIRST_SECONDS = 30.0
"""Before the first commit has told what one costs."""
PRIOR_DISRUPTIONS = 1
PRIOR_SECONDS = 3600.0
"""What is believed before anything is seen: one disruption an hour, as much as one hour's observation weighs."""


@dataclass(frozen=True)
class History:
    """What the job has lived through."""

    disruptions: int
    """Attempts that have ended before the work was done."""
    seconds: float
    """Time trained so far, over all attempts."""

    @property
    def seconds_between_disruptions(self) -> float:
        """Mean time between disruptions: mean of the posterior rate under a gamma prior, inverted."""
        return (self.seconds + PRIOR_SECONDS) / (self.disruptions + PRIOR_DISRUPTIONS)


def daly(cost: float, between: float) -> float:
    """Seconds of work between commits that cost `cost` seconds each, with `between` seconds between disruptions.

    Daly's equation 37: sqrt(2CM) (1 + sqrt(C/2M)/3 + C/18M) - C for C < 2M, else M.
    """
    if cost >= 2 * between:
        return between
    ratio = cost / (2 * between)
    return math.sqrt(2 * cost * between) * (1 + math.sqrt(ratio) / 3 + ratio / 9) - cost


def automatic(cost: float | None, history: History) -> float:
    """The interval for `intervalSeconds: auto`. `cost`: seconds of training that a commit takes; None: not known."""
    if cost is None:
        return FIRST_SECONDS
    return min(MOST_SECONDS, max(LEAST_SECONDS, daly(cost, history.seconds_between_disruptions)))
