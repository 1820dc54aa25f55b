"""status.conditions, derived from the phase on every pass, as the Kubernetes API conventions describe."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from distill_api.constants import ConditionType, Phase
from distill_api.reason_facts import Place
from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import Condition, DistillJobStatus
from distill_operator.status import kstatus
from distill_operator.types import attempts, clocks, messages
from distill_operator.types.actions import Notice


def find(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """The condition of this type."""
    return next((condition for condition in conditions if condition.type == kind), None)


def set_condition(conditions: Sequence[Condition], new: Condition) -> list[Condition]:
    """The conditions with this one set; lastTransitionTime changes only when the status does."""
    old = find(conditions, new.type)
    if old is None:
        return [*conditions, new]
    if old.status == new.status:
        new = new.model_copy(update={"last_transition_time": old.last_transition_time})
    return [new if condition.type == new.type else condition for condition in conditions]


def derived(
    status: DistillJobStatus,
    spec: DistillJobSpec,
    generation: int | None,
    notice: Notice,
    invalid: Notice | None,
    now: datetime,
) -> list[Condition]:
    """All conditions of a job in this phase, given the reason for it."""
    held = kstatus.held(status.phase, notice, invalid)
    gone = kstatus.TYPES - ({held[0]} if held is not None else set())
    conditions = [condition for condition in status.conditions if condition.type not in gone]

    def put(kind: ConditionType, holds: bool, reason: Reason, message: str) -> None:
        value: Literal["True", "False"] = "True" if holds else "False"
        condition = Condition(
            type=kind,
            status=value,
            reason=reason,
            message=message,
            last_transition_time=now,
            observed_generation=generation,
        )
        conditions[:] = set_condition(conditions, condition)

    failed = status.phase == Phase.FAILED
    if invalid is not None or (failed and Place.VALIDATED in notice.reason.facts.places):
        why = invalid or notice
        put(ConditionType.VALIDATED, False, why.reason, why.message)
    else:
        put(ConditionType.VALIDATED, True, Reason.ACCEPTED, messages.ACCEPTED)

    put(ConditionType.RUNNING, status.phase == Phase.RUNNING, notice.reason, notice.message)

    if status.phase == Phase.SUSPENDED:
        put(ConditionType.SUSPENDED, True, Reason.SUSPENDED_BY_USER, messages.SUSPENDED)
    elif spec.suspend and status.phase not in (Phase.SUCCEEDED, Phase.FAILED):
        put(ConditionType.SUSPENDED, False, Reason.PODS_TERMINATING, messages.SUSPENDING)
    else:
        put(ConditionType.SUSPENDED, False, Reason.ACCEPTED, messages.NOT_SUSPENDED)

    attempt, avoided = attempts.open_attempt(status), _avoided(status)
    smaller = attempt is not None and attempt.nodes < spec.nodes
    if attempt is not None and smaller:
        message = messages.SMALLER.format(nodes=attempt.nodes, asked=spec.nodes)
        if attempt.grow_at is not None:
            message += messages.GROWS_AT.format(at=clocks.time_of_day(attempt.grow_at))
        put(ConditionType.DEGRADED, True, Reason.FEWER_NODES, message + avoided)
    else:
        put(ConditionType.DEGRADED, False, Reason.ACCEPTED, messages.FULL_SIZE + avoided)

    if held is not None:
        put(held[0], True, held[1].reason, held[1].message)

    if status.phase == Phase.SUCCEEDED:
        put(ConditionType.COMPLETE, True, notice.reason, notice.message)
    if failed:
        put(ConditionType.FAILED, True, notice.reason, notice.message)
    return conditions


def _avoided(status: DistillJobStatus) -> str:
    """Which nodes are avoided, why and until when, to add to a sentence; empty if none is or the job is over."""
    nodes = () if status.over else status.avoided_nodes
    return "".join(
        messages.AVOIDED.format(
            node=node.node, at=clocks.time_of_day(node.until), reason=node.reason, attempt=node.attempt
        )
        for node in nodes
    )
