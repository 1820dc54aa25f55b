"""Reads and replaces status.attempts. Pure."""

from datetime import datetime
from typing import Any

from distill_api.constants import Outcome
from distill_api.reason_facts import Blame
from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.recipe import chosen
from distill_api.status import KEPT_ATTEMPTS, Attempt, DistillJobStatus

NEWEST_KEPT = 10
"""As many of the newest attempts are kept, however they ended."""


def newest(status: DistillJobStatus) -> Attempt | None:
    """The attempt with the highest number."""
    return status.attempts[-1] if status.attempts else None


def open_attempt(status: DistillJobStatus) -> Attempt | None:
    """The attempt whose pods may be running; None between attempts.

    An outcome of a newer operator is an end if the time of the end is stored, too.
    """
    attempt = newest(status)
    if attempt is None:
        return None
    unknown = not attempt.outcome.known and attempt.ended_at is None
    return attempt if attempt.outcome == Outcome.RUNNING or unknown else None


def nodes_occupied(status: DistillJobStatus) -> int:
    """Nodes that the pods of the open attempt occupy; 0 until all of them have one."""
    attempt = open_attempt(status)
    return attempt.nodes if attempt is not None and attempt.scheduled_at is not None else 0


def full_nodes(status: DistillJobStatus, spec: DistillJobSpec) -> int:
    """Nodes at full size: as many as spec.nodes were when the first attempt started. The global batch has a shard for
    each of their processes, however many nodes the job asks for later.
    """
    return status.full_nodes or max([spec.nodes, *(attempt.nodes for attempt in status.attempts)])


def recipe(status: DistillJobStatus, spec: DistillJobSpec) -> dict[str, Any] | None:
    """The fields that spec.recipe chooses. While an attempt is open, and once a step is committed, they stay as they
    are, also if this version of the operator would choose others.
    """
    now = chosen(spec)
    settled = open_attempt(status) is not None or committed_step(status) > 0
    return status.recipe if now is not None and settled and status.recipe is not None else now


def unwanted_nodes(status: DistillJobStatus) -> tuple[str, ...]:
    """Avoided nodes that may be used if there are no others: what happened there may be the program's doing."""
    return tuple(n.node for n in status.avoided_nodes if n.reason.facts.blames_node == Blame.REPEATED)


def with_newest(status: DistillJobStatus, attempt: Attempt) -> DistillJobStatus:
    """The status with its newest attempt replaced by `attempt`."""
    return status.model_copy(update={"attempts": [*status.attempts[:-1], attempt]})


def with_new_attempt(
    status: DistillJobStatus, nodes: int, now: datetime, generation: int | None = None
) -> DistillJobStatus:
    """The status with one more attempt, of the spec of this generation."""
    attempt = Attempt(number=status.attempt + 1, nodes=nodes, started_at=now, generation=generation)
    return status.model_copy(
        update={
            "attempt": attempt.number,
            "attempts": _kept([*status.attempts, attempt]),
            "started_at": status.started_at or now,
            "next_attempt_at": None,
        }
    )


def _kept(found: list[Attempt]) -> list[Attempt]:
    """The attempts that the status keeps. Withdrawn ones, of which there may be many, are dropped first."""
    if len(found) <= KEPT_ATTEMPTS:
        return found
    withdrawn = (a for a in found[:-NEWEST_KEPT] if a.outcome == Outcome.WITHDRAWN)
    dropped = next(withdrawn, found[0])
    return _kept([attempt for attempt in found if attempt is not dropped])


def last_step_before(status: DistillJobStatus, number: int) -> int | None:
    """The last known step of the latest attempt before `number` that has one."""
    earlier = [a.step for a in status.attempts if a.number < number and a.step is not None]
    return earlier[-1] if earlier else None


def committed_before(status: DistillJobStatus, number: int) -> int:
    """The newest step that any attempt before `number` committed."""
    return max((a.committed_step or 0 for a in status.attempts if a.number < number), default=0)


def committed_step(status: DistillJobStatus) -> int:
    """The newest step that the job is known to have committed; 0 for none."""
    reported = status.progress.committed_step if status.progress is not None else 0
    return max(reported, committed_before(status, status.attempt + 1))


def outcome_of(reason: Reason) -> Outcome:
    """The outcome of an attempt that ended for this reason. Raises ValueError if no attempt ends for it."""
    if reason.facts.outcome is None:
        raise ValueError(f"{reason} is not a reason for the end of an attempt")
    return reason.facts.outcome
