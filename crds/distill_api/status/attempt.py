"""An attempt: one set of pods that train together."""

from datetime import datetime
from typing import Annotated

from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema

from distill_api.base import Model
from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_api.status.progress import Spent

KEPT_VERSION_CHANGES = 16
DECISION_LINES = 10
DECISION_LETTERS = 200
"""In a line of an attempt's decision; longer ones are cut."""
KEPT_AVOIDED_NODES = 8

# The API server does not limit these words, so that versions of the operator can follow each other in both directions.
_WORD = WithJsonSchema({"type": "string"})
StoredOutcome = Annotated[Outcome, BeforeValidator(Outcome.read), _WORD]
StoredReason = Annotated[Reason, BeforeValidator(Reason.read), _WORD]


class VersionChange(Model):
    """Software that has another version in an attempt than when the attempt's checkpoint was written."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    name: Annotated[str, Field(max_length=64)]
    """torch, ultralytics or trainer."""
    checkpoint: Annotated[str, Field(max_length=128)]
    """Version that wrote the checkpoint."""
    attempt: Annotated[str, Field(max_length=128)]
    """Version in this attempt."""


class SpecChange(Model):
    """A field of spec that has another value in an attempt than when the attempt's checkpoint was written."""

    model_config = ConfigDict(extra="ignore")  # rank 0 may be newer than its reader

    field: Annotated[str, Field(max_length=64)]
    """The field, such as training.epochs."""
    checkpoint: Annotated[str, Field(max_length=128)]
    """Its value when the checkpoint was written."""
    attempt: Annotated[str, Field(max_length=128)]
    """Its value in this attempt."""


SpecChanges = Annotated[list[SpecChange], Field(max_length=KEPT_VERSION_CHANGES)]


class StartProblem(Model):
    """Why a pod of an attempt that has a node cannot start."""

    reason: Reason
    """ImagePullFailed or PodCannotStart; the condition Running has the details."""
    since: datetime
    """Since when the operator has seen it (operator's clock)."""
    lasts: bool = False
    """Whether it lasts until somebody repairs something. If so, the attempt is withdrawn 120 s after since, and else
    after recovery.schedulingTimeoutSeconds."""


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
    start_problem: StartProblem | None = None
    """Why a pod cannot start; null once all can, and in an attempt that ended, what it was when it ended."""
    running_at: datetime | None = None
    """When the operator saw its first step (operator's clock)."""
    stepped_at: datetime | None = None
    """When the operator saw its newest step (operator's clock)."""
    moved_at: datetime | None = None
    """When rank 0 last made progress of any kind, validations included (operator's clock: rank 0 says how many seconds
    ago)."""
    ended_at: datetime | None = None
    """When the operator saw that it had ended or must end (operator's clock)."""
    outcome: StoredOutcome = Outcome.RUNNING
    """Running, Succeeded, Disrupted (by the cluster), Failed, or Withdrawn (by operator, user, queue or a rule for exit
    codes; not charged)."""
    reason: StoredReason | None = None
    """Reason of the first event that ended the attempt; docs/reasons.md lists all reasons with their remedies."""
    message: str | None = None
    """Details of that event: pod, node, exit code."""
    execution: Annotated[int, Field(ge=0)] | None = None
    """Number of its gang's life, by rank 0: it only grows over the job. It is the attempt's number until an attempt
    lives more than once, as when something else resumes its Job; null if the trainer image does not count."""
    node: str | None = None
    """Node of the pod with that event; null if the end is not about a single node."""
    decision: Annotated[list[str], Field(json_schema_extra={"maxItems": DECISION_LINES})] | None = None
    """What was decided and why, for people, in at most 10 lines of 200 letters: with how many nodes it started if not
    with all, which rule ended it, what was observed of which pod (and by whose clock), what was set aside and why."""
    avoids: Annotated[list[str], Field(json_schema_extra={"maxItems": KEPT_AVOIDED_NODES})] | None = None
    """Nodes that its pods must not run on, the longest avoided first."""
    resumed_from_step: Annotated[int, Field(ge=0)] | None = None
    """Committed step that the attempt resumed from; 0 for a fresh start."""
    version_changes: Annotated[list[VersionChange], Field(max_length=KEPT_VERSION_CHANGES)] | None = None
    """Software whose version differs from the one that wrote the checkpoint; with any, the resumed run may not be
    bitwise equal to an uninterrupted one."""
    spec_changes: SpecChanges | None = None
    """Fields of spec.training that were changed since the checkpoint was written; they hold from that step on."""
    step: Annotated[int, Field(ge=0)] | None = None
    """Last known step of the attempt."""
    committed_step: Annotated[int, Field(ge=0)] | None = None
    """Last step that the attempt committed to the checkpoints volume."""
    lost_steps: Annotated[int, Field(ge=0)] | None = None
    """Steps of the previous attempt that this one had to repeat."""
    grow_at: datetime | None = None
    """When the operator next asks for more nodes for an attempt on fewer nodes (operator's clock)."""
    grow_tries: int = 0
    """Times that the operator asked for more nodes and the cluster had no room for all of them; each doubles the wait
    before the next."""
    next_nodes: int | None = None
    """Nodes of the next attempt, if this one ended in order to change their number."""
    spent: Spent | None = None
    """Where the time from the start of this attempt to the start of the next one went."""
    spent_before: Spent | None = None
    """The part of spent from before its newest execution; null if it had only one."""
