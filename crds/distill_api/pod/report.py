"""What a training pod tells the operator: /status while it runs, the termination message when it ends."""

from datetime import datetime
from typing import Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field

from distill_api.base import Model
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.status import Progress, Result, VersionChange

MAX_MESSAGE = 4096
"""Kubernetes cuts a termination message here (bytes)."""


_REPORTED = frozenset(reason for reason in Reason if Place.TERMINATION in reason.facts.places)

State = Literal["starting", "training", "validating", "committing", "finishing", "stopping", "done"]


def _known_state(value: Any) -> Any:
    return "training" if isinstance(value, str) and value not in get_args(State) else value


def _known_reason(value: Any) -> Any:
    return value if not isinstance(value, str) or value in _REPORTED else Reason.TRAINER_ERROR


class RankSeconds(Model):
    """Seconds since the rank's process began to report. Each second is counted once."""

    model_config = ConfigDict(extra="ignore")

    starting: float = 0.0
    """Until the first step of this attempt was finished, a validation of the teacher left out."""
    training: float = 0.0
    """Steps, with their waits for data."""
    checkpoint: float = 0.0
    """Training stood still for a snapshot, or for a commit to become durable."""
    validation: float = 0.0
    """Validations, the writing of the weights that follows, and the outputs at the end of the run."""


class TrainerStatus(Model):
    """Body of GET /status on every rank. The operator reads rank 0's.

    Trainer images may be newer than the operator: fields that it does not know are left out.
    """

    model_config = ConfigDict(extra="ignore")

    job: str
    """Name of the DistillJob."""
    attempt: int
    """Number of the attempt that this rank belongs to."""
    rank: int
    """Global rank."""
    world_size: int
    """Ranks in the gang."""
    state: Annotated[State, BeforeValidator(_known_state)]
    """What the rank does now; a state of a newer trainer is read as training."""
    moved_at: datetime | None = None
    """When the rank last made any progress of any kind: a step, a batch of a validation, a part of the data scan."""
    resumed_from_step: int | None = None
    """Committed step that the attempt started from; 0 for a fresh start, null until that is known."""
    version_changes: list[VersionChange] | None = None
    """Software whose version differs from that of the checkpoint that the attempt started from."""
    steps_this_attempt: int = 0
    """Steps finished by this attempt."""
    checkpoint_fallbacks: int = 0
    """Damaged checkpoints that this attempt had to step over to find a readable one."""
    seconds: RankSeconds | None = None
    """Where the rank's time went in this attempt."""
    progress: Progress = Progress()
    """How far the training is."""


class TerminationMessage(Model):
    """JSON in the termination message of every training container; fields of newer trainers are left out."""

    model_config = ConfigDict(extra="ignore")

    outcome: Literal["done", "stopped", "permanent", "failed"]
    """done and stopped are ends with everything committed; permanent means that trying again cannot help."""
    reason: Annotated[Reason, BeforeValidator(_known_reason)]
    """Why the container ended; Completed for done. A reason of a newer trainer is read as TrainerError."""
    message: str = ""
    """What is wrong, where, and what to do, in one line."""
    rank: int | None = None
    """The rank that failed first on this node."""
    waited: bool = False
    """Whether the rank has waited in vain for another one, rather than seen a connection break."""
    attempt: int = Field(ge=1)
    """Number of the attempt."""
    step: int | None = None
    """Last step finished."""
    committed_step: int | None = None
    """Last step that is safe on the checkpoints volume, as far as this node knows."""
    resumed_from_step: int | None = None
    """Committed step that the attempt started from."""
    version_changes: list[VersionChange] | None = None
    """On rank 0: software whose version differs from that checkpoint's."""
    progress: Progress | None = None
    """Rank 0's last progress."""
    seconds: RankSeconds | None = None
    """Where rank 0's time went in this attempt."""
    result: Result | None = None
    """Rank 0's completion record; present exactly when outcome is done on node 0."""

    def to_json(self) -> str:
        """The message, shortened so that Kubernetes does not cut the JSON."""
        text = self.model_dump_json(by_alias=True, exclude_none=True)
        excess = len(text.encode()) - MAX_MESSAGE
        if excess <= 0:
            return text
        keep = max(0, len(self.message.encode()) - excess - len("…".encode()))
        short = self.message.encode()[:keep].decode(errors="ignore") + "…"
        return self.model_copy(update={"message": short}).model_dump_json(by_alias=True, exclude_none=True)
