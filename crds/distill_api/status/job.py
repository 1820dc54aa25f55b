"""The status as a whole."""

from datetime import datetime
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from distill_api.base import Model
from distill_api.constants import TERMINAL_PHASES, ConditionType, Phase
from distill_api.status.attempt import KEPT_AVOIDED_NODES, Attempt, StoredReason
from distill_api.status.progress import Goodput, Progress, Result

KEPT_ATTEMPTS = 20
LIST_KEYS: Final = {"conditions": "type", "attempts": "number", "versionChanges": "name", "avoidedNodes": "node"}
"""The field that tells the elements of each list apart."""

_WORD = WithJsonSchema({"type": "string"})  # see attempt.py
StoredPhase = Annotated[Phase, BeforeValidator(Phase.read), _WORD]
StoredConditionType = Annotated[ConditionType, BeforeValidator(ConditionType.read), _WORD]


class Condition(Model):
    """A condition as in the Kubernetes API conventions."""

    type: StoredConditionType
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


class Waiting(Model):
    """What prevents the job from creating its pods."""

    reason: StoredReason
    """Reason, such as a missing claim, an object that is refused, or pods of an earlier attempt that still exist."""
    message: str
    """Details: which object, and why it is refused."""
    since: datetime
    """Since when the job has been waiting for this reason (operator's clock)."""


class AvoidedNode(Model):
    """A node that the next attempts do not use, or only if no other is free (docs/fault-tolerance.md)."""

    node: str
    """Name of the node."""
    reason: StoredReason
    """Why the attempt ended there; docs/reasons.md says which reasons speak against a node."""
    attempt: int
    """Number of that attempt."""
    until: datetime
    """When it may be used again (operator's clock)."""


class DistillJobStatus(Model):
    """Observed state of a job."""

    observed_generation: int | None = None
    """The metadata.generation that the status was set for; -1 until the operator has seen the job."""
    phase: StoredPhase = Phase.PENDING
    """Summary for people: Pending, Queued, Starting, Running, Recovering, Suspended, Succeeded or Failed."""
    conditions: list[Condition] = []
    """Validated, Running, Suspended, Degraded, Complete and Failed. Programs should use these. Reconciling and Stalled
    are for GitOps tools (kstatus), and present only while they are True."""
    waiting: Waiting | None = None
    """What prevents the job from creating its pods; null while nothing does."""
    attempt: int = 0
    """Number of the newest attempt; 0 before the first."""
    attempts: Annotated[list[Attempt], Field(json_schema_extra={"maxItems": KEPT_ATTEMPTS})] = []
    """The newest attempts, oldest first."""
    avoided_nodes: Annotated[list[AvoidedNode], Field(json_schema_extra={"maxItems": KEPT_AVOIDED_NODES})] = []
    """Nodes that the next attempts do not use, the longest avoided first (spec.recovery.avoidNodeSeconds)."""
    failures: int = 0
    """Attempts that failed."""
    preemptions: int = 0
    """Attempts that were disrupted."""
    restarts: str = "0/0"
    """failures/preemptions, for kubectl get."""
    nodes: str | None = None
    """Running pods / requested nodes, for kubectl get."""
    replicas: int = 0
    """Running pods, for kubectl scale and others that use the scale subresource."""
    full_nodes: int | None = None
    """spec.nodes when the first attempt started. The global batch has one shard for each of these nodes' processes at
    every size, so spec.nodes cannot become larger."""
    recipe: dict[str, Any] | None = None
    """The fields of spec that recipe: auto chose for the newest attempt; null for other recipes. Once a step is
    committed they stay, also with a newer operator."""
    restarts_without_progress: int = 0
    """Attempts in a row, failed or disrupted, without a newly committed step; the back-off grows with them."""
    failures_without_progress: int = 0
    """Those of them that failed."""
    failed_starts: int = 0
    """Attempts in a row whose pods could not start. With 8 the job is marked Failed, unless the last cause may pass by
    itself; an attempt that trains, a suspension, or a change of the spec starts the count again."""
    next_attempt_at: datetime | None = None
    """When the back-off before the next attempt ends (operator's clock)."""
    started_at: datetime | None = None
    """When the first attempt started (operator's clock)."""
    active_since: datetime | None = None
    """Since when the job counts towards spec.activeDeadlineSeconds (operator's clock); null while it is suspended or a
    queue holds its attempt."""
    finished_at: datetime | None = None
    """When the job became Succeeded or Failed (operator's clock)."""
    progress: Progress | None = None
    """Progress of the training."""
    goodput: Goodput | None = None
    """Where the job's time went."""
    result: Result | None = None
    """Result of the finished job."""

    @property
    def over(self) -> bool:
        """Whether the job has ended. A phase of a newer operator counts as an end if it has set finishedAt."""
        return self.phase in TERMINAL_PHASES or (not self.phase.known and self.finished_at is not None)
