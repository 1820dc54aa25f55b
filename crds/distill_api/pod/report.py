"""What a training pod reports to the operator: /status while it runs, the termination message when it ends."""

from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field

from distill_api.base import Count, Model, Seconds
from distill_api.constants import JOB_NAME_LENGTH
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.status import KEPT_VERSION_CHANGES, Progress, Result, SpecChanges, VersionChange

MAX_MESSAGE = 4096
"""Kubernetes truncates termination messages to this many bytes."""


WARNING: Final = "; warning: "
"""What separates warnings from each other, and from what a check has found, in a message with the reason Checked."""

_REPORTED = frozenset(reason for reason in Reason if Place.TERMINATION in reason.facts.places)

State = Literal["starting", "training", "validating", "committing", "finishing", "stopping", "done"]


def _known_state(value: Any) -> Any:
    return "training" if isinstance(value, str) and value not in get_args(State) else value


def _known_reason(value: Any) -> Any:
    return value if not isinstance(value, str) or value in _REPORTED else Reason.TRAINER_ERROR


class RankSeconds(Model):
    """Where the time of a rank went, in seconds. Each second is counted once."""

    model_config = ConfigDict(extra="ignore")

    starting: Seconds = 0.0
    """Until the first step of this attempt was finished, without a validation of the teacher."""
    training: Seconds = 0.0
    """Steps, including waits for data."""
    checkpoint: Seconds = 0.0
    """Training was paused for a snapshot, or until a commit was durable."""
    validation: Seconds = 0.0
    """Validations, including the weights written after them, and the outputs at the end of the run."""


class TrainerStatus(Model):
    """Body of GET /status on every rank. The operator reads rank 0's.

    Trainer images may be newer than the operator, so unknown fields are ignored.
    """

    model_config = ConfigDict(extra="ignore")

    job: Annotated[str, Field(max_length=JOB_NAME_LENGTH)]
    """Name of the DistillJob."""
    uid: Annotated[str, Field(max_length=64)]
    """UID of the DistillJob, so that no other job's pod at the same address is taken for this one's."""
    attempt: Count
    """Number of the attempt that this rank belongs to."""
    execution: Count | None = None
    """Number of this life of the gang, which rank 0 took from the checkpoints volume: it only grows over all lives of
    the job. Null until the rank knows it, and with trainers that do not count executions."""
    rank: Count
    """Global rank."""
    world_size: Count
    """Ranks in the gang."""
    state: Annotated[State, BeforeValidator(_known_state)]
    """What the rank is doing; unknown states of newer trainers are read as training."""
    idle_seconds: Seconds = 0.0
    """Seconds since the rank last made progress of any kind: a step, a validation's batch, a part of the data scan. A
    duration, because the clocks of two machines differ."""
    resumed_from_step: Count | None = None
    """Committed step that the attempt resumed from; 0 for a fresh start, null until it is known."""
    version_changes: Annotated[list[VersionChange], Field(max_length=KEPT_VERSION_CHANGES)] | None = None
    """Software whose version differs from the one that wrote the checkpoint that the attempt resumed from."""
    spec_changes: SpecChanges | None = None
    """Fields of spec that have another value than when that checkpoint was written."""
    steps_this_attempt: Count = 0
    """Steps that this attempt has finished."""
    checkpoint_fallbacks: Count = 0
    """Damaged checkpoints that this attempt skipped to find a readable one."""
    seconds: RankSeconds | None = None
    """Where the rank's time went in this attempt."""
    progress: Progress = Progress()
    """Progress of the training."""


class TerminationMessage(Model):
    """JSON in the termination message of every training container; unknown fields of newer trainers are ignored."""

    model_config = ConfigDict(extra="ignore")

    outcome: Literal["done", "stopped", "permanent", "failed"]
    """With done and stopped all steps are committed; permanent means that a retry cannot help."""
    reason: Annotated[Reason, BeforeValidator(_known_reason)]
    """Why the container ended; Completed for done. Unknown reasons of newer trainers are read as TrainerError."""
    message: str = ""
    """What is wrong, where, and what to do, in one line."""
    rank: Count | None = None
    """The rank that failed first on this node."""
    waited: bool = False
    """Whether the rank timed out waiting for another one, rather than losing a connection."""
    attempt: Annotated[Count, Field(ge=1)]
    """Number of the attempt."""
    execution: Count | None = None
    """Execution number of the gang, if the rank knew it."""
    step: Count | None = None
    """Last finished step."""
    committed_step: Count | None = None
    """Last committed step, as far as this node knows."""
    resumed_from_step: Count | None = None
    """Committed step that the attempt resumed from."""
    version_changes: Annotated[list[VersionChange], Field(max_length=KEPT_VERSION_CHANGES)] | None = None
    """On rank 0: software whose version differs from the one that wrote that checkpoint."""
    spec_changes: SpecChanges | None = None
    """On rank 0: fields of spec that have another value than when that checkpoint was written."""
    progress: Progress | None = None
    """Last progress of rank 0."""
    seconds: RankSeconds | None = None
    """Where the time of rank 0 went in this attempt."""
    result: Result | None = None
    """Completion record of rank 0; present if and only if outcome is done on node 0."""

    def to_json(self) -> str:
        """The JSON, with `message` shortened so that Kubernetes does not truncate it."""
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        excess = len(text.encode()) - MAX_MESSAGE
        if excess <= 0:
            return text
        keep = max(0, len(self.message.encode()) - excess - len("…".encode()))
        short = self.message.encode()[:keep].decode(errors="ignore") + "…"
        return self.model_copy(update={"message": short}).model_dump_json(by_alias=True, exclude_none=True)
