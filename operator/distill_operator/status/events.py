"""The Kubernetes events of a pass: the changes from the stored status to the new one."""

from distill_api.constants import Outcome, Phase
from distill_api.reasons import Reason
from distill_api.status import Attempt, AvoidedNode, DistillJobStatus
from distill_operator.types import clocks, messages
from distill_operator.types.actions import Event, Notice


def transition_events(old: DistillJobStatus, new: DistillJobStatus, notice: Notice) -> tuple[Event, ...]:
    """Events for the changes, in the order in which they happened."""
    before = {attempt.number: attempt for attempt in old.attempts}
    events = [event for attempt in new.attempts for event in _of_attempt(before.get(attempt.number), attempt)]
    avoided = {(node.node, node.attempt) for node in old.avoided_nodes}
    events += [_of_node(node) for node in new.avoided_nodes if (node.node, node.attempt) not in avoided]
    if new.phase != old.phase:
        events += _of_phase(new, notice)
    if new.waiting is not None and (old.waiting is None or old.waiting.reason != new.waiting.reason):
        events.append(Event(new.waiting.reason, new.waiting.message))
    return tuple(events)


def _of_attempt(old: Attempt | None, new: Attempt) -> list[Event]:
    events = []
    if old is None:
        message = messages.ATTEMPT_CREATED.format(attempt=new.number, nodes=new.nodes)
        events.append(Event(Reason.ATTEMPT_CREATED, message))
    if new.resumed_from_step and (old is None or old.resumed_from_step is None):
        message = messages.RESUMED.format(attempt=new.number, step=new.resumed_from_step, lost=new.lost_steps or 0)
        events.append(Event(Reason.RESUMED, message))
    if old is not None and old.execution is not None and new.execution is not None and new.execution > old.execution:
        place = {"attempt": new.number, "before": old.execution, "now": new.execution, "step": new.committed_step or 0}
        events.append(Event(Reason.EXECUTION_CHANGED, messages.EXECUTION_CHANGED.format(**place)))
    if new.version_changes and (old is None or not old.version_changes):
        changes = ", ".join(f"{c.name} {c.checkpoint} is now {c.attempt}" for c in new.version_changes)
        message = messages.VERSIONS_CHANGED.format(attempt=new.number, changes=changes)
        events.append(Event(Reason.VERSIONS_CHANGED, message))
    if new.spec_changes and (old is None or not old.spec_changes):
        changes = ", ".join(f"{c.field} {c.checkpoint} is now {c.attempt}" for c in new.spec_changes)
        events.append(Event(Reason.SPEC_CHANGED, messages.SPEC_CHANGED.format(attempt=new.number, changes=changes)))
    if new.running_at is not None and (old is None or old.running_at is None):
        message = messages.FIRST_STEP.format(attempt=new.number, nodes=new.nodes)
        events.append(Event(Reason.TRAINING, message))
    succeeds = new.reason is not None and new.reason.facts.outcome == Outcome.SUCCEEDED
    if new.reason is not None and not succeeds and (old is None or old.reason is None):
        message = messages.ATTEMPT_ENDED.format(attempt=new.number, message=new.message)
        events.append(Event(new.reason, message))
    return events


def _of_node(node: AvoidedNode) -> Event:
    text = messages.NODE_AVOIDED.format(
        node=node.node, at=clocks.timestamp(node.until), attempt=node.attempt, reason=node.reason
    )
    return Event(Reason.NODE_AVOIDED, text)


def _of_phase(new: DistillJobStatus, notice: Notice) -> list[Event]:
    if new.phase in (Phase.SUCCEEDED, Phase.FAILED):
        return [Event(notice.reason, notice.message)]
    if new.phase == Phase.SUSPENDED:
        return [Event(Reason.SUSPENDED_BY_USER, notice.message)]
    return []


def restarted(old: DistillJobStatus, new: DistillJobStatus) -> list[Attempt]:
    """Attempts that ended in this pass without success, for the restart metrics."""
    closed_before = {a.number for a in old.attempts if a.outcome != Outcome.RUNNING}
    return [
        a
        for a in new.attempts
        if a.number not in closed_before and a.outcome not in (Outcome.RUNNING, Outcome.SUCCEEDED)
    ]
