"""Who gives up first when nothing moves: a waiting collective, then the stuck rank's watchdog, then the operator.

The order decides what the user is told. A rank that only waits leaves by its collective's own error, an echo that is
never blamed. A rank that is stuck by itself is then named by its watchdog, with its phase and all stacks. The operator
ends the attempt after the whole stall timeout: it can only delete pods, which leaves no trace of the cause, so it is
there for the case that the trainer itself cannot tell.
"""

from dataclasses import dataclass

_COLLECTIVE, _COLLECTIVE_SECONDS, _COLLECTIVE_MOST = 0.5, 60.0, 0.7
_WATCHDOG = 0.8


@dataclass(frozen=True)
class Timeouts:
    """Seconds without any movement, in the order in which they run out."""

    collective: float
    """A collective whose peer does not come fails: half the stall timeout; of a short one more, up to a minute."""
    watchdog: float
    """A rank whose main thread does not move ends itself."""
    operator: float
    """The operator ends the attempt."""


def timeouts(stall_timeout_seconds: float) -> Timeouts:
    """The timeouts of a job's recovery.stallTimeoutSeconds."""
    whole = float(stall_timeout_seconds)
    collective = max(_COLLECTIVE * whole, min(_COLLECTIVE_SECONDS, _COLLECTIVE_MOST * whole))
    return Timeouts(collective, _WATCHDOG * whole, whole)
