"""A queue, such as Kueue, holds the attempt's Job suspended, admits it, and may suspend it again to take nodes back.

Such an eviction ends the attempt, uncharged. Its Job is kept, because it has the place in the queue, and reserved for
the next attempt: the pods that the queue admits later carry that attempt's number, so that the fence and everything
else tells the two lives of the Job apart.
"""

from datetime import datetime, timedelta

from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_operator.types import messages
from distill_operator.types.actions import Action, Delete, Notice, Reserve
from distill_operator.types.observed import JobFacts, Observed

RESERVE_SECONDS = 30
"""Kubernetes lets the pods of a suspended Job be changed once its startTime is reset; Kueue does this a moment after it
has suspended the Job."""


def evicted(attempt: Attempt, job: JobFacts | None) -> Notice | None:
    """Why the attempt ends: its Job was admitted, and is suspended again."""
    if job is None or not job.suspended or attempt.admitted_at is None or job.inert:
        return None
    return Notice(Reason.QUEUE_EVICTED, messages.QUEUE_EVICTED.format(job=job.name))


def keep_place(attempt: Attempt, job: JobFacts | None, committed: int, now: datetime) -> tuple[Action, ...]:
    """Reserve the Job of an evicted attempt for the next one; tried until it works, for RESERVE_SECONDS.

    If that does not work, or if the queue was faster, the Job is deleted instead. `committed`: the job's newest
    committed step.
    """
    if attempt.reason != Reason.QUEUE_EVICTED or job is None or job.inert:
        return ()
    late = attempt.ended_at is not None and now - attempt.ended_at > timedelta(seconds=RESERVE_SECONDS)
    if late or not job.suspended:
        return (Delete("Job", job.name, job.uid, foreground=True),)
    return (Reserve(job.name, job.uid, attempt.number + 1, committed),)


def reserved(observed: Observed, number: int, nodes: int) -> JobFacts | None:
    """The Job that an evicted attempt left for attempt `number`, whether or not it is admitted by now; None if it would
    start another number of pods.
    """
    job = _left(observed, number)
    return job if job is not None and job.nodes == nodes else None


def misfits(observed: Observed, number: int, nodes: int) -> tuple[JobFacts, ...]:
    """A Job that was left for attempt `number` but has another number of pods than the attempt gets."""
    job = _left(observed, number)
    return (job,) if job is not None and job.nodes != nodes else ()


def _left(observed: Observed, number: int) -> JobFacts | None:
    job = observed.job_of(number)
    return job if job is not None and not job.inert else None
