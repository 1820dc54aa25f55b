"""status: what is true of a job. Written by the operator alone, and never ahead of the truth."""

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
    """Name of the condition."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, as one word for programs."""
    message: str = ""
    """Why, for people: what is wrong, where, and what to do."""
    last_transition_time: datetime
    """When status last changed."""
    observed_generation: int | None = None
    """The metadata.generation that this condition was made from."""


class Spent(Model):
    """Where time went. Each second is counted once."""

    productive_seconds: float = 0.0
    """Steps whose work was kept, with their waits for data."""
    checkpoint_stall_seconds: float = 0.0
    """Training stood still for a snapshot, or for a commit to become durable."""
    lost_work_seconds: float = 0.0
    """Steps that were not committed when their attempt ended and had to be done again."""
    restart_seconds: float = 0.0
    """Neither waiting for nodes nor training: starting up, noticing an end, winding down, backing off."""
    waiting_for_capacity_seconds: float = 0.0
    """Not all pods had a node."""
    validation_seconds: float = 0.0
    """Validations of student and teacher."""


class Goodput(Spent):
    """Where the job's time went since its first attempt was decided. Time while the job is suspended is left out."""

    ratio: float | None = None
    """productiveSeconds divided by all seconds; null before there are any."""
    accounted_until: datetime
    """Until when; while steps are made, when rank 0 last answered."""


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
    """One gang of pods, from its creation to its end."""

    number: Annotated[int, Field(ge=1)]
    """Number of the attempt, from 1."""
    nodes: Annotated[int, Field(ge=1)]
    """Pods in this attempt."""
    started_at: datetime
    """When the attempt was decided."""
    job_uid: str | None = None
    """UID of the attempt's Job; null until the operator has seen that it exists."""
    admitted_at: datetime | None = None
    """When the attempt's Job was first seen not suspended (operator's clock); null while a queue holds it. The
    scheduling timeout counts from here."""
    scheduled_at: datetime | None = None
    """When all its pods had a node."""
    running_at: datetime | None = None
    """When its first step was seen."""
    stepped_at: datetime | None = None
    """When its newest step was seen."""
    moved_at: datetime | None = None
    """When rank 0 last made progress of any kind, by its own word: a validation counts, too."""
    ended_at: datetime | None = None
    """When its end was seen."""
    outcome: Outcome = Outcome.RUNNING
    """Running, Succeeded, Disrupted (not the trainer's fault), Failed, or Withdrawn (asked for; not charged)."""
    reason: Reason | None = None
    """The first event that ended the attempt; what followed in the other pods is its echo."""
    message: str | None = None
    """That event in words: which pod, which node, which exit code."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """Committed step that this attempt started from; 0 for a fresh start."""
    version_changes: list[VersionChange] | None = None
    """Software whose version differs from the checkpoint's; where there is any, a resume need not be bitwise equal."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Last step that was seen in this attempt."""
    committed_step: Annotated[int, Field(ge=0)] | None = None
    """Last step of this attempt that is safe on the checkpoints volume."""
    lost_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of the previous attempt that this one had to do again."""
    grow_at: datetime | None = None
    """When an attempt with fewer nodes than asked for asks for the missing ones, next."""
    next_nodes: int | None = None
    """Pods of the next attempt, where this one has ended so that it has another number of them."""
    spent: Spent | None = None
    """Where the time from this attempt's beginning to the next one's went."""


class Progress(Model):
    """How far the training is, as rank 0 reports it."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    epoch: int = 0
    """Epochs finished."""
    epochs: int = 0
    """Epochs to do."""
    step: int = 0
    """Steps finished."""
    steps: int = 0
    """Steps to do."""
    images_per_second: float | None = None
    """Images per second over all ranks."""
    eta_seconds: int | None = None
    """Seconds to the end at the present rate."""
    eta: str | None = None
    """The same for people, such as 1h20m."""
    committed_step: int = 0
    """Last step that is safe on the checkpoints volume."""
    committed_at: datetime | None = None
    """When that checkpoint was committed."""
    distillation_loss: float | None = None
    """Distillation loss of the last epoch or the running one, weight included."""
    first_distillation_loss: float | None = None
    """Distillation loss of the first epoch."""
    student_map: float | None = None
    """mAP50-95 of the student at the last validation."""
    teacher_map: float | None = None
    """mAP50-95 of the teacher on the same images."""
    map_gap: float | None = None
    """teacherMap minus studentMap."""
    updated_at: datetime | None = None
    """When rank 0 last answered."""


class Result(Model):
    """What a finished job leaves, taken from rank 0's completion record."""

    model_config = ConfigDict(extra="ignore")

    checkpoint: str
    """The student's weights, relative to the checkpoints volume: <job>/weights/best.pt."""
    sha256: str
    """Digest of that file."""
    student_map: float | None = None
    """mAP50-95 of the student."""
    teacher_map: float | None = None
    """mAP50-95 of the teacher."""


class Waiting(Model):
    """What keeps the job from creating its pods."""

    reason: Reason
    """A claim that is missing, an object that is refused, or pods of an earlier attempt that are still there."""
    message: str
    """That in words: which object, and what was said about it."""
    since: datetime
    """When the job began to wait for this reason (operator's clock)."""


class DistillJobStatus(Model):
    """What is true of a job."""

    observed_generation: int | None = None
    """The metadata.generation that this status was made from."""
    phase: Phase = Phase.PENDING
    """A summary for people."""
    conditions: list[Condition] = []
    """What programs wait for: Validated, Running, Suspended, Degraded, Complete, Failed."""
    waiting: Waiting | None = None
    """What keeps the job from creating its pods; null while nothing does."""
    attempt: int = 0
    """Number of the newest attempt; 0 before the first."""
    attempts: Annotated[list[Attempt], Field(max_length=KEPT_ATTEMPTS)] = []
    """The newest attempts, oldest first."""
    failures: int = 0
    """Attempts that ended by a failure."""
    preemptions: int = 0
    """Attempts that ended by a disruption."""
    restarts: str = "0/0"
    """failures/preemptions, for the printed column."""
    nodes: str | None = None
    """Nodes that run / nodes asked for, for the printed column."""
    restarts_without_progress: int = 0
    """Restarts in a row without a newly committed step."""
    next_attempt_at: datetime | None = None
    """When the back-off before the next attempt ends."""
    started_at: datetime | None = None
    """When the first attempt was decided."""
    finished_at: datetime | None = None
    """When the job became Succeeded or Failed."""
    progress: Progress | None = None
    """How far the training is."""
    goodput: Goodput | None = None
    """Where the job's time went."""
    result: Result | None = None
    """What the finished job leaves."""
