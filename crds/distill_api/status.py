"""status: the observed state of a job. Only the operator writes it. Times are in whole seconds, and each field that has
one says whose clock it is from.
"""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import ConfigDict, Field

from distill_api.base import Model
from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.reasons import Reason

KEPT_ATTEMPTS = 20


class Condition(Model):
    """A condition as in the Kubernetes API conventions."""

    type: ConditionType
    """Type of the condition."""
    status: Literal["True", "False", "Unknown"]
    """True, False or Unknown."""
    reason: str
    """Reason for the status, for programs; docs/reasons.md lists all reasons with their remedies."""
    message: str = ""
    """Reason for the status, for people: what is wrong, where, and what to do."""
    last_transition_time: datetime
    """When the status last changed (operator's clock)."""
    observed_generation: int | None = None
    """The metadata.generation that the condition was set for."""


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


class VersionChange(Model):
    """Software that has another version in an attempt than when the attempt's checkpoint was written."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    name: str
    """torch, ultralytics or trainer."""
    checkpoint: str
    """Version that wrote the checkpoint."""
    attempt: str
    """Version in this attempt."""


class Attempt(Model):
    """One set of pods that train together, from its creation to its end."""

    number: Annotated[int, Field(ge=1)]
    """Number of the attempt, from 1."""
    nodes: Annotated[int, Field(ge=1)]
    """Pods in this attempt."""
    started_at: datetime
    """When the operator started the attempt (operator's clock)."""
    generation: int | None = None
    """The metadata.generation of the spec that the attempt was started with."""
    job_uid: str | None = None
    """UID of the attempt's Job; null until the operator has seen the Job."""
    admitted_at: datetime | None = None
    """When the operator first saw the attempt's Job not suspended (operator's clock); null while a queue holds the Job.
    The scheduling timeout counts from here."""
    scheduled_at: datetime | None = None
    """When the last of its pods was scheduled (the cluster's clock: conditions PodScheduled)."""
    running_at: datetime | None = None
    """When the operator saw its first step (operator's clock)."""
    stepped_at: datetime | None = None
    """When the operator saw its newest step (operator's clock)."""
    moved_at: datetime | None = None
    """When rank 0 last made progress of any kind, validations included (rank 0's clock, at most the operator's)."""
    ended_at: datetime | None = None
    """When the operator saw that it had ended or must end (operator's clock)."""
    outcome: Outcome = Outcome.RUNNING
    """Running, Succeeded, Disrupted (by the cluster), Failed, or Withdrawn (by operator or user; not charged)."""
    reason: Reason | None = None
    """Reason of the first event that ended the attempt; docs/reasons.md lists all reasons with their remedies."""
    message: str | None = None
    """Details of that event: pod, node, exit code."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """Committed step that the attempt resumed from; 0 for a fresh start."""
    version_changes: list[VersionChange] | None = None
    """Software whose version differs from the one that wrote the checkpoint; with any, the resumed run may not be
    bitwise equal to an uninterrupted one."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Last known step of the attempt."""
    committed_step: Annotated[int, Field(ge=0)] | None = None
    """Last step that the attempt committed to the checkpoints volume."""
    lost_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of the previous attempt that this one had to repeat."""
    grow_at: datetime | None = None
    """When the operator next asks for more nodes for an attempt on fewer nodes (operator's clock)."""
    next_nodes: int | None = None
    """Nodes of the next attempt, if this one ended in order to change their number."""
    spent: Spent | None = None
    """Where the time from the start of this attempt to the start of the next one went."""


class Progress(Model):
    """Progress of the training, as rank 0 reports it."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    epoch: int = 0
    """Finished epochs."""
    epochs: int = 0
    """Epochs of the whole job."""
    step: int = 0
    """Finished steps."""
    steps: int = 0
    """Steps of the whole job."""
    images_per_second: float | None = None
    """Images per second over all ranks."""
    eta_seconds: int | None = None
    """Seconds until the end of the training at the current rate."""
    eta: str | None = None
    """The same for people, such as 1h20m."""
    committed_step: int = 0
    """Last step that is committed to the checkpoints volume."""
    committed_at: datetime | None = None
    """When that step was committed (rank 0's clock)."""
    distillation_loss: float | None = None
    """Distillation loss of the current or the last epoch, including its weight."""
    first_distillation_loss: float | None = None
    """Distillation loss of the first epoch."""
    student_map: float | None = None
    """mAP50-95 of the student at the last validation."""
    teacher_map: float | None = None
    """mAP50-95 of the teacher on the same images."""
    map_gap: float | None = None
    """teacherMap minus studentMap."""
    updated_at: datetime | None = None
    """When rank 0 last reported new progress (operator's clock)."""


class Result(Model):
    """Result of a finished job, from rank 0's completion record."""

    model_config = ConfigDict(extra="ignore")

    checkpoint: str
    """Path of the student's weights on the checkpoints volume: <job>/weights/best.pt."""
    sha256: str
    """SHA-256 of that file."""
    student_map: float | None = None
    """mAP50-95 of the student."""
    teacher_map: float | None = None
    """mAP50-95 of the teacher."""


class Waiting(Model):
    """What prevents the job from creating its pods."""

    reason: Reason
    """Reason, such as a missing claim, an object that is refused, or pods of an earlier attempt that still exist."""
    message: str
    """Details: which object, and why it is refused."""
    since: datetime
    """Since when the job has been waiting for this reason (operator's clock)."""


class DistillJobStatus(Model):
    """Observed state of a job."""

    observed_generation: int | None = None
    """The metadata.generation that the status was set for."""
    phase: Phase = Phase.PENDING
    """Summary for people."""
    conditions: list[Condition] = []
    """Validated, Running, Suspended, Degraded, Complete and Failed. Programs should use these."""
    waiting: Waiting | None = None
    """What prevents the job from creating its pods; null while nothing does."""
    attempt: int = 0
    """Number of the newest attempt; 0 before the first."""
    attempts: Annotated[list[Attempt], Field(max_length=KEPT_ATTEMPTS)] = []
    """The newest attempts, oldest first."""
    failures: int = 0
    """Attempts that failed."""
    preemptions: int = 0
    """Attempts that were disrupted."""
    restarts: str = "0/0"
    """failures/preemptions, for kubectl get."""
    nodes: str | None = None
    """Running pods / requested nodes, for kubectl get."""
    restarts_without_progress: int = 0
    """Restarts in a row without a newly committed step."""
    next_attempt_at: datetime | None = None
    """When the back-off before the next attempt ends (operator's clock)."""
    started_at: datetime | None = None
    """When the first attempt started (operator's clock)."""
    finished_at: datetime | None = None
    """When the job became Succeeded or Failed (operator's clock)."""
    progress: Progress | None = None
    """Progress of the training."""
    goodput: Goodput | None = None
    """Where the job's time went."""
    result: Result | None = None
    """Result of the finished job."""
