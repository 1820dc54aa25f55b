"""The result of a decision, as values: the plan, its actions and its events."""

from dataclasses import dataclass, field
from typing import Any

from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus


@dataclass(frozen=True)
class Notice:
    """A reason for programs and a message for people."""

    reason: Reason
    message: str
    node: str | None = field(default=None, compare=False)
    """The node of the pod that it is about, if it is about one."""


@dataclass(frozen=True)
class Create:
    """Create an object unless it already exists and belongs to the job. A refusal is an input of the next plan."""

    manifest: dict[str, Any] = field(hash=False)
    optional: bool = False
    """The job does not need it: a refusal is only logged."""
    update: bool = False
    """If it exists with another spec, as an earlier version or configuration of the operator made it, change that."""

    @property
    def what(self) -> str:
        """Kind and name."""
        return f"{self.manifest['kind']} {self.manifest['metadata']['name']}"


@dataclass(frozen=True)
class Delete:
    """Delete exactly this object; a no-op if it is gone or was replaced."""

    kind: str
    name: str
    uid: str
    foreground: bool = False
    """Keep the object until its dependents are gone."""
    at_once: bool = False
    """With a grace period of zero, so that a pod is removed even if its node does not confirm its end."""


@dataclass(frozen=True)
class Reserve:
    """Let a suspended Job start the pods of this attempt when it is resumed. A refusal is only logged."""

    name: str
    uid: str
    attempt: int
    committed_step: int = 0
    """Newest committed step of the job."""


Action = Create | Delete | Reserve


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the DistillJob. Its type is in the table of reasons."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Decision:
    """The job's new status, the reason for it, and what to do."""

    status: DistillJobStatus
    notice: Notice
    actions: tuple[Action, ...] = ()
    wake_after: float | None = None
    """Seconds until the passing of time may change the decision."""
    waits: bool = False
    """Whether the notice says what keeps the job from creating its pods."""
    invalid: Notice | None = None
    """Why the job cannot run as it is, for the condition Validated."""


@dataclass(frozen=True)
class Plan:
    """The result of planning; it is applied in this order: status, actions, events."""

    status: DistillJobStatus | None = None
    """The status to write; None if the stored one is up to date."""
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    wake_after: float | None = None
