"""Whose clock a time is from. Clocks of two machines are never compared without a tolerance.

    operator        `now`, and all times of the status except scheduledAt. Timeouts are counted on it alone.
    API server      a pod's deletion (metadata.deletionTimestamp), creation times
    control plane   a Job's failure (Job controller), a pod's scheduling and preemption (scheduler), its eviction
    node            start and end of a container (the node's kubelet and container runtime)
    rank 0          progress.committedAt only; how long it has made no progress is a duration

The operator takes its own time from the API server's answers (`kube/clock.py`), so these two agree.
"""

from datetime import datetime, timedelta
from typing import Final

NODE_SKEW: Final = timedelta(seconds=5)
"""Two events on different machines that are closer than this are taken as simultaneous: what they are decides."""
CONTROL_PLANE_SKEW: Final = timedelta(seconds=3)
"""The same for the API server and the controllers, which mostly run on one machine, and the seconds are whole ones."""


def timestamp(moment: datetime) -> str:
    """A time in UTC as Kubernetes writes it, such as 2026-11-23T12:00:00Z."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def time_of_day(moment: datetime) -> str:
    """The same without the date, for what is near."""
    return moment.strftime("%H:%M:%SZ")
