"""Progress, time and result of the training."""

from datetime import datetime
from typing import Annotated

from pydantic import ConfigDict, Field

from distill_api.base import Count, Measured, Model, Moment


class Spent(Model):
    """Where the time went. Each second is counted once."""

    productive_seconds: float = 0.0
    """Steps whose work was kept, including waits for data."""
    checkpoint_stall_seconds: float = 0.0
    """Training was paused for a snapshot, or until a commit was durable."""
    lost_work_seconds: float = 0.0
    """Steps that were not committed when their attempt ended and had to be repeated."""
    restart_seconds: float = 0.0
    """Starting up, noticing that an attempt has ended, terminating pods, and backing off."""
    waiting_for_capacity_seconds: float = 0.0
    """Not all pods were scheduled."""
    validation_seconds: float = 0.0
    """Validations of student and teacher."""


class Goodput(Spent):
    """Where the job's time went since its first attempt started, without the time while it was suspended."""

    ratio: float | None = None
    """productiveSeconds divided by all seconds; null before the first second."""
    accounted_until: datetime
    """Until when time is accounted for; during training, when rank 0 last answered (operator's clock)."""


class Progress(Model):
    """Progress of the training, as rank 0 reports it."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    epoch: Count = 0
    """Finished epochs."""
    epochs: Count = 0
    """Epochs of the whole job."""
    step: Count = 0
    """Finished steps."""
    steps: Count = 0
    """Steps of the whole job."""
    images_per_second: Measured = None
    """Images per second over all ranks."""
    eta_seconds: Count | None = None
    """Seconds until the end of the training at the current rate."""
    eta: Annotated[str, Field(max_length=32)] | None = None
    """The same for people, such as 1h20m."""
    committed_step: Count = 0
    """Last step that is committed to the checkpoints volume."""
    committed_at: Moment | None = None
    """When that step was committed (rank 0's clock)."""
    distillation_loss: Measured = None
    """Distillation loss of the current or the last epoch, including its weight."""
    first_distillation_loss: Measured = None
    """Distillation loss of the first epoch."""
    student_map: Measured = None
    """mAP50-95 of the student at the last validation."""
    teacher_map: Measured = None
    """mAP50-95 of the teacher on the same images."""
    map_gap: Measured = None
    """teacherMap minus studentMap."""
    cached_images: Count | None = None
    """Images that spec.dataCache has copies of on rank 0's node."""
    cacheable_images: Count | None = None
    """Images for which its size has room."""
    updated_at: Moment | None = None
    """When rank 0 last reported new progress (operator's clock)."""


class Result(Model):
    """Result of a finished job, from rank 0's completion record."""

    model_config = ConfigDict(extra="ignore")

    checkpoint: Annotated[str, Field(max_length=1024)]
    """Path of the student's weights on the checkpoints volume: <job>/weights/best.pt."""
    sha256: Annotated[str, Field(max_length=64)]
    """SHA-256 of that file."""
    student_map: Measured = None
    """mAP50-95 of the student."""
    teacher_map: Measured = None
    """mAP50-95 of the teacher."""
