"""How long to wait before the next attempt."""

import hashlib

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_operator.types.settings import Settings

WITHDRAWN_SECONDS = (5.0, 30.0)
"""Range of the wait after an attempt that found no room: long enough for a rival to take what was given back."""


def delay(reason: Reason, outcome: Outcome, without_progress: int, uid: str, number: int, tuning: Settings) -> float:
    """Seconds until the next attempt.

    What had committed new steps starts again at once: the back-off is there for what fails again and again. The n-th
    failure in a row without progress waits base · 2^(n-1), up to the cap; a disruption, which is not the trainer's
    doing, as long as a failure before it. An attempt that found no room waits a time of its own, so that two jobs that
    each hold half of a cluster do not meet again and again.
    """
    if reason == Reason.SCHEDULING_TIMEOUT:
        low, high = WITHDRAWN_SECONDS
        return round(low + (high - low) * jitter(uid, number))
    if outcome not in (Outcome.FAILED, Outcome.DISRUPTED):
        return 0.0
    doublings = without_progress - (1 if outcome == Outcome.FAILED else 2)
    return min(tuning.backoff_cap, tuning.backoff_base * 2.0**doublings) if doublings >= 0 else 0.0


def jitter(uid: str, number: int) -> float:
    """A fraction in [0, 1) that is the same whenever it is asked for this attempt of this job."""
    digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
