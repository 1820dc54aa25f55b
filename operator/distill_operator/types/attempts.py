"""Reads and replaces status.attempts. Pure."""

from datetime import datetime

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_api.status import KEPT_ATTEMPTS, Attempt, DistillJobStatus


def newest(status: DistillJobStatus) -> Attempt | None:
    """The attempt with the highest number."""
    return status.attempts[-1] if status.attempts else None


def open_attempt(status: DistillJobStatus) -> Attempt | None:
    """The attempt whose pods may be running; None between attempts."""
    attempt = newest(status)
    return attempt if attempt is not None and attempt.outcome == Outcome.RUNNING else None


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
            "attempts": [*status.attempts, attempt][-KEPT_ATTEMPTS:],
            "started_at": status.started_at or now,
            "next_attempt_at": None,
        }
    )


def last_step_before(status: DistillJobStatus, number: int) -> int | None:
    """The last known step of the latest attempt before `number` that has one."""
    earlier = [a.step for a in status.attempts if a.number < number and a.step is not None]
    return earlier[-1] if earlier else None


def committed_before(status: DistillJobStatus, number: int) -> int:
    """The newest step that any attempt before `number` committed."""
    return max((a.committed_step or 0 for a in status.attempts if a.number < number), default=0)


def outcome_of(reason: Reason) -> Outcome:
    """The outcome of an attempt that ended for this reason. Raises ValueError if no attempt ends for it."""
    if reason.facts.outcome is None:
        raise ValueError(f"{reason} is not a reason for the end of an attempt")
    return reason.facts.outcome
