"""A stored job that this version of the operator cannot read, most often because a newer one wrote it.

Nothing is done but to say so: the job may still be training, and a newer operator or a correction makes it readable.
"""

from dataclasses import dataclass
from datetime import datetime

from distill_api.constants import TERMINAL_PHASES, ConditionType
from distill_api.reasons import Reason
from distill_api.status import Condition
from distill_operator.kube.objects import Object
from distill_operator.types import messages
from distill_operator.types.actions import Event


@dataclass(frozen=True)
class Said:
    """What is written about an unreadable job."""

    status: Object
    """The stored status with the condition Validated set to False, and otherwise as it was."""
    event: Event


def plan(raw: Object, errors: str, now: datetime) -> Said | None:
    """What to write; None if it has been written, or the job is over or being deleted."""
    metadata, status = raw["metadata"], raw.get("status") or {}
    if metadata.get("deletionTimestamp") or status.get("finishedAt") or status.get("phase") in TERMINAL_PHASES:
        return None
    event = Event(Reason.NOT_UNDERSTOOD, messages.UNREADABLE.format(errors=errors))
    new = Condition(
        type=ConditionType.VALIDATED,
        status="False",
        reason=event.reason,
        message=event.message,
        last_transition_time=now,
        observed_generation=metadata.get("generation"),
    ).to_wire()
    conditions = list(status.get("conditions") or ())
    old: Object = next((condition for condition in conditions if condition.get("type") == new["type"]), {})
    if old.get("status") == new["status"]:
        new["lastTransitionTime"] = old.get("lastTransitionTime", new["lastTransitionTime"])
    if old.items() >= new.items():
        return None
    others = [condition for condition in conditions if condition is not old]
    return Said({**status, "conditions": [*others, {**old, **new}]}, event)
