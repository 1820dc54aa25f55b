"""spec.ttlSecondsAfterFinished: a finished job deletes itself, and with it all that it owns."""

from datetime import datetime, timedelta


def seconds_left(ttl: int | None, finished_at: datetime | None, now: datetime) -> float | None:
    """Seconds until the job is to be deleted; 0 when it is time, None when it stays."""
    if ttl is None or finished_at is None:
        return None
    return max(0.0, (finished_at + timedelta(seconds=ttl) - now).total_seconds())
