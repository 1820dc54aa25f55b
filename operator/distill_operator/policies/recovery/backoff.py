"""How long to wait before the next attempt."""

import hashlib

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_operator.types.settings import Settings

WITHDRAWN_SECONDS = (5.0, 30.0)
"""Range of the wait after a withdrawn attempt, so that a competing job can take the nodes that were given back."""


def delay(reason: Reason, outcome: Outcome, in_a_row: int, uid: str, number: int, tuning: Settings) -> float:
    """Seconds until the next attempt, given the restarts without progress, or the failed starts, in a row.

    After an attempt that committed new steps the next one starts at once. After the n-th failure in a row without
    progress, or the n-th failed start, the delay is base · 2^(n-1), up to the cap; after a disruption it is half as
    long, and 0 for n = 1. After a withdrawn attempt it depends on the job, so that two jobs that each hold half of a
    cluster do not collide again.
    """
    if reason == Reason.SCHEDULING_TIMEOUT:
        low, high = WITHDRAWN_SECONDS
        return round(low + (high - low) * jitter(uid, number))
    if not (reason.facts.failed or outcome == Outcome.DISRUPTED or reason.facts.cannot_start):
        return 0.0
    doublings = in_a_row - (2 if outcome == Outcome.DISRUPTED else 1)
    return min(tuning.backoff_cap, tuning.backoff_base * 2.0**doublings) if doublings >= 0 else 0.0


def jitter(uid: str, number: int) -> float:
    """A fraction in [0, 1) that depends only on the job and the attempt."""
    digest = hashlib.sha256(f"{uid}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") / 2**32
