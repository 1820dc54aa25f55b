"""A stored job that this version of the operator cannot read: Failed before its first attempt, else unchanged."""

from datetime import datetime

from distill_api.constants import TERMINAL_PHASES, ConditionType, Phase
from distill_api.reasons import Reason
from distill_api.status import Condition, DistillJobStatus
from distill_operator.kube.objects import Object
from distill_operator.types import messages
from distill_operator.types.actions import Event, Plan


def plan(raw: Object, errors: str, now: datetime) -> Plan:
    """Mark the job Failed if it has had no attempt; otherwise do nothing, because it may still be training."""
    status = raw.get("status") or {}
    if status.get("attempt") or status.get("phase") in TERMINAL_PHASES:
        return Plan()
    message = messages.SPEC_UNREADABLE.format(errors=errors)
    generation = raw["metadata"].get("generation")
    verdicts = ((ConditionType.VALIDATED, "False"), (ConditionType.FAILED, "True"))
    refused = DistillJobStatus(
        observed_generation=generation,
        phase=Phase.FAILED,
        finished_at=now,
        conditions=[
            Condition.model_validate(
                {
                    "type": kind,
                    "status": holds,
                    "reason": Reason.CONFIG_INVALID,
                    "message": message,
                    "lastTransitionTime": now,
                    "observedGeneration": generation,
                }
            )
            for kind, holds in verdicts
        ],
    )
    return Plan(refused, events=(Event(Reason.CONFIG_INVALID, message),))
