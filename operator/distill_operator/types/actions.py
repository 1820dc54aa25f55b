"""What a pass wants done, as values: the plan, its actions and the events it tells."""

from dataclasses import dataclass, field
from typing import Any

from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus


@dataclass(frozen=True)
class Notice:
    """A reason for programs and a message for people."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Create:
    """Create an object unless it exists and is ours. A refusal is an observation for the next plan."""

    manifest: dict[str, Any] = field(hash=False)
    optional: bool = False
    """The job goes on without it: a refusal is logged and no more."""

    @property
    def what(self) -> str:
        """Kind and name."""
        return f"{self.manifest['kind']} {self.manifest['metadata']['name']}"


@dataclass(frozen=True)
class Delete:
    """Delete exactly this object; one that is gone or was replaced is left alone."""

    kind: str
    name: str
    uid: str
    foreground: bool = False
    """Keep the object until what it owns is gone."""
    at_once: bool = False
    """With a grace period of zero: a pod's object goes whether or not its node confirms that the pod has ended."""


Action = Create | Delete


@dataclass(frozen=True)
class Event:
    """A Kubernetes event about the DistillJob. Its type is in the table of reasons."""

    reason: Reason
    message: str


@dataclass(frozen=True)
class Decision:
    """What is true of the job now, why it waits if it waits, and what to do."""

    status: DistillJobStatus
    notice: Notice
    actions: tuple[Action, ...] = ()
    wake_after: float | None = None
    """Seconds until time alone may change the decision."""
    waits: bool = False
    """Whether the notice says what keeps the job from creating its pods."""
    invalid: Notice | None = None
    """Why the job cannot be run as it is, for the condition Validated."""


@dataclass(frozen=True)
class Plan:
    """A pass's result, done in this order: status, actions, events."""

    status: DistillJobStatus | None = None
    """The status to write; None when the stored one is still true."""
    actions: tuple[Action, ...] = ()
    events: tuple[Event, ...] = ()
    wake_after: float | None = None
