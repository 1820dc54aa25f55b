"""Who gives up first when nothing moves: a waiting collective, then the stuck rank's watchdog, then the operator.

The order decides what the user is told. A rank that only waits leaves by its collective's own error, an echo that is
never blamed. A rank that is stuck by itself is then named by its watchdog, with its phase and all stacks; one whose
watchdog is stopped as well, by the launcher. The operator ends the attempt after the whole stall timeout: it can only
delete pods, which leaves no trace of the cause, so it is there for the case that the trainer itself cannot tell.
"""

from dataclasses import dataclass

_COLLECTIVE, _COLLECTIVE_SECONDS, _COLLECTIVE_MOST = 0.5, 60.0, 0.7
_WATCHDOG = 0.8
_SUSPECT_SHARE, _SUSPECT_LEAST = 0.5, 5.0
_LAST_COMMIT, _LAST_COMMIT_MOST = 0.15, 15.0


@dataclass(frozen=True)
class Timeouts:
    """Seconds without any movement, in the order in which they run out."""

    suspect: float
    """A rank without a heartbeat for this long is the one that a leaving rank or a stop waits for."""
    collective: float
    """A collective whose peer does not come fails: half the stall timeout; of a short one more, up to a minute."""
    watchdog: float
    """A rank whose main thread does not move ends itself; one without a heartbeat is ended by the launcher."""
    operator: float
    """The operator ends the attempt."""
    last_commit: float
    """What a stuck rank gives its last snapshot to become durable, so that it still leaves before the operator acts."""


def timeouts(stall_timeout_seconds: float) -> Timeouts:
    """The timeouts of a job's recovery.stallTimeoutSeconds."""
    whole = float(stall_timeout_seconds)
    collective = max(_COLLECTIVE * whole, min(_COLLECTIVE_SECONDS, _COLLECTIVE_MOST * whole))
    return Timeouts(
        suspect=max(_SUSPECT_SHARE * collective, min(_SUSPECT_LEAST, 0.9 * collective)),
        collective=collective,
        watchdog=_WATCHDOG * whole,
        operator=whole,
        last_commit=min(_LAST_COMMIT_MOST, _LAST_COMMIT * whole),
    )
