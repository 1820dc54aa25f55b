"""spec.ttlSecondsAfterFinished: the operator deletes a finished job, and Kubernetes all that the job owns."""

from datetime import datetime, timedelta


def seconds_left(ttl: int | None, finished_at: datetime | None, now: datetime) -> float | None:
    """Seconds until the job is deleted: 0 when it is time, None when it is kept."""
    if ttl is None or finished_at is None:
        return None
    return max(0.0, (finished_at + timedelta(seconds=ttl) - now).total_seconds())
