"""Timeouts for a stalled attempt. They expire in order: collective, watchdog of the stuck rank, operator.

The order decides which cause is reported. A rank that only waits for another fails with the error of its collective,
which is never taken for the cause. A rank that is stuck itself is then reported by its watchdog, with its phase and the
stacks of all threads, or by the launcher if its watchdog is stopped too. The operator acts last, after the full stall
timeout: it can only delete pods, which leaves no trace of the cause.
"""

from dataclasses import dataclass

_COLLECTIVE_SHARE, _COLLECTIVE_SECONDS, _COLLECTIVE_MAX_SHARE = 0.5, 60.0, 0.7
_WATCHDOG_SHARE = 0.8
_SUSPECT_SHARE, _SUSPECT_MIN_SECONDS = 0.5, 5.0
_LAST_COMMIT_SHARE, _LAST_COMMIT_MAX_SECONDS = 0.15, 15.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds without progress, in the order in which they expire."""

    suspect: float
    """A rank without a heartbeat for this long is killed if other ranks have ended or a stop was requested."""
    collective: float
    """A waiting collective fails: half the stall timeout, or a larger share of a short one, up to 60 s."""
    watchdog: float
    """A rank whose main thread is stuck ends itself; the launcher kills a rank without a heartbeat."""
    operator: float
    """The operator ends the attempt."""
    last_commit: float
    """How long a stuck rank waits for its last commit, so that it still ends before the operator acts."""


def timeouts(stall_timeout_seconds: float) -> Timeouts:
    """The timeouts of a job's recovery.stallTimeoutSeconds."""
    whole = float(stall_timeout_seconds)
    collective = max(_COLLECTIVE_SHARE * whole, min(_COLLECTIVE_SECONDS, _COLLECTIVE_MAX_SHARE * whole))
    return Timeouts(
        suspect=max(_SUSPECT_SHARE * collective, min(_SUSPECT_MIN_SECONDS, 0.9 * collective)),
        collective=collective,
        watchdog=_WATCHDOG_SHARE * whole,
        operator=whole,
        last_commit=min(_LAST_COMMIT_MAX_SECONDS, _LAST_COMMIT_SHARE * whole),
    )
