"""The deletion of what ended attempts leave behind."""

from distill_operator.types.actions import Delete
from distill_operator.types.observed import JobFacts, Observed


def remove_leftovers(observed: Observed, newest: int) -> tuple[Delete, ...]:
    """Delete the Services and Jobs of attempts up to `newest`, all of which have ended.

    The newest Job is kept if it is inert, because its pods keep the last logs. A Job that is not inert was created
    late, by a request whose response was lost, and would start pods that belong to no attempt.
    """
    services = [s for s in observed.services if s.owned and s.attempt <= newest]
    ended = [j for j in observed.jobs if j.owned and j.attempt < newest and j.inert and not j.deleting]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in ended),
        *_deletions(active_jobs(observed, newest)),
    )


def active_jobs(observed: Observed, newest: int) -> tuple[JobFacts, ...]:
    """Jobs of ended attempts, up to `newest`, that may still create pods."""
    return tuple(job for job in observed.jobs if job.owned and job.attempt <= newest and not job.inert)


def remove_late_jobs(observed: Observed, current: int) -> tuple[Delete, ...]:
    """Delete Jobs of earlier attempts that were created late, while attempt `current` is open."""
    return _deletions(active_jobs(observed, current - 1))


def _deletions(jobs: tuple[JobFacts, ...]) -> tuple[Delete, ...]:
    return tuple(Delete("Job", job.name, job.uid, foreground=True) for job in jobs)
