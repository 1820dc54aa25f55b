"""spec.activeDeadlineSeconds: the job is Failed once it has been active for this long, as in batch/v1."""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_operator.types import messages
from distill_operator.types.actions import Notice


def exceeded(active_deadline_seconds: int | None, active_since: datetime | None, now: datetime) -> Notice | None:
    """Why the job must end: the deadline has passed."""
    left = seconds_left(active_deadline_seconds, active_since, now)
    if left is None or left > 0:
        return None
    return Notice(Reason.DEADLINE_EXCEEDED, messages.DEADLINE.format(seconds=active_deadline_seconds))


def seconds_left(active_deadline_seconds: int | None, active_since: datetime | None, now: datetime) -> float | None:
    """Seconds until the deadline; None when there is none."""
    if active_deadline_seconds is None or active_since is None:
        return None
    return (active_since + timedelta(seconds=active_deadline_seconds) - now).total_seconds()
