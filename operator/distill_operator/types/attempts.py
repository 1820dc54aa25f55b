"""Reading and rewriting status.attempts. Pure."""

from datetime import datetime

from distill_api.constants import Outcome
from distill_api.reasons import Reason
from distill_api.status import KEPT_ATTEMPTS, Attempt, DistillJobStatus


def newest(status: DistillJobStatus) -> Attempt | None:
    """The attempt with the highest number."""
    return status.attempts[-1] if status.attempts else None


def open_attempt(status: DistillJobStatus) -> Attempt | None:
    """The attempt whose pods may live; None between attempts."""
    attempt = newest(status)
    return attempt if attempt is not None and attempt.outcome == Outcome.RUNNING else None


def with_newest(status: DistillJobStatus, attempt: Attempt) -> DistillJobStatus:
    """The status with its newest attempt replaced."""
    return status.model_copy(update={"attempts": [*status.attempts[:-1], attempt]})


def with_new_attempt(status: DistillJobStatus, nodes: int, now: datetime) -> DistillJobStatus:
    """The status with a further attempt."""
    attempt = Attempt(number=status.attempt + 1, nodes=nodes, started_at=now)
    return status.model_copy(
        update={
            "attempt": attempt.number,
            "attempts": [*status.attempts, attempt][-KEPT_ATTEMPTS:],
            "started_at": status.started_at or now,
            "next_attempt_at": None,
        }
    )


def last_step_before(status: DistillJobStatus, number: int) -> int | None:
    """The last step seen in the latest earlier attempt that made or resumed any."""
    earlier = [a.step for a in status.attempts if a.number < number and a.step is not None]
    return earlier[-1] if earlier else None


def committed_before(status: DistillJobStatus, number: int) -> int:
    """The newest step committed by any earlier attempt."""
    return max((a.committed_step or 0 for a in status.attempts if a.number < number), default=0)


def outcome_of(reason: Reason) -> Outcome:
    """What an attempt that ended for this reason counts as. Raises ValueError for a reason that ends no attempt."""
    if reason.facts.outcome is None:
        raise ValueError(f"{reason} is no reason for the end of an attempt")
    return reason.facts.outcome
