"""What closed attempts leave behind, and what of it is cleared."""

from distill_operator.types.actions import Delete
from distill_operator.types.observed import JobFacts, Observed


def remove_leftovers(observed: Observed, newest: int) -> tuple[Delete, ...]:
    """The Services and Jobs of attempts up to `newest`, all closed.

    The newest Job stays once it is inert, as its pods keep the last logs. A Job that is not inert has come late, by a
    create whose answer was lost, and would start a gang that nobody follows.
    """
    services = [s for s in observed.services if s.owned and s.attempt <= newest]
    ended = [j for j in observed.jobs if j.owned and j.attempt < newest and j.inert and not j.deleting]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in ended),
        *_deletions(active_jobs(observed, newest)),
    )


def active_jobs(observed: Observed, newest: int) -> tuple[JobFacts, ...]:
    """Jobs of attempts up to `newest`, all closed, that may still start pods."""
    return tuple(job for job in observed.jobs if job.owned and job.attempt <= newest and not job.inert)


def remove_late_jobs(observed: Observed, current: int) -> tuple[Delete, ...]:
    """The deletion of Jobs of earlier attempts that have come late, while attempt `current` is open."""
    return _deletions(active_jobs(observed, current - 1))


def _deletions(jobs: tuple[JobFacts, ...]) -> tuple[Delete, ...]:
    return tuple(Delete("Job", job.name, job.uid, foreground=True) for job in jobs)
