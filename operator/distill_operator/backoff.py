"""How long to wait before the next attempt."""

import hashlib

from distill_api.constants import Outcome, Reason
from distill_operator.settings import Settings

TAKEN_BACK_SECONDS = (5.0, 30.0)
"""Range of the wait after an attempt that found no room: long enough for a rival to take what was given back."""


def delay(reason: Reason, outcome: Outcome, without_progress: int, uid: str, number: int, tuning: Settings) -> float:
    """Seconds until the next attempt.

    A disruption restarts at once, unless restarts already follow each other without progress. A failure waits
    base · 2^n, n counting restarts in a row without progress, up to the cap. An attempt that found no room waits a
    time of its own, so that two jobs that each hold half of a cluster do not meet again and again.
    """
    if reason == Reason.SCHEDULING_TIMEOUT:
        low, high = TAKEN_BACK_SECONDS
        return round(low + (high - low) * jitter(uid, number))
    doublings = max(0, without_progress - 1)
    if outcome == Outcome.FAILED:
        return min(tuning.backoff_cap, tuning.backoff_base * 2.0**doublings)
    if outcome == Outcome.DISRUPTED and doublings > 0:
        return min(tuning.backoff_cap, tuning.backoff_base * 2.0 ** (doublings - 1))
    return 0.0


def jitter(uid: str, number: int) -> float:
    """A fraction in [0, 1) that is the same whenever it is asked for this attempt of this job."""
    digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
