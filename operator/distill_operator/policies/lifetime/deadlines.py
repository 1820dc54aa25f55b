"""spec.activeDeadlineSeconds: the job is Failed this long after its first attempt started."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def exceeded(active_deadline_seconds: int | None, started_at: datetime | None, now: datetime) -> Notice | None:
    """Why the job must end: the deadline has passed. Time while suspended counts."""
    left = seconds_left(active_deadline_seconds, started_at, now)
    if left is None or left > 0:
        return None
    return Notice(Reason.DEADLINE_EXCEEDED, messages.DEADLINE.format(seconds=active_deadline_seconds))


def seconds_left(active_deadline_seconds: int | None, started_at: datetime | None, now: datetime) -> float | None:
    """Seconds until the deadline; None when there is none."""
    if active_deadline_seconds is None or started_at is None:
        return None
    return (started_at + timedelta(seconds=active_deadline_seconds) - now).total_seconds()
