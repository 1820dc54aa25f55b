"""The deletion of what ended attempts leave behind."""

from distill_operator.types.actions import Delete
from distill_operator.types.observed import JobFacts, Observed


def remove_leftovers(observed: Observed, newest: int) -> tuple[Delete, ...]:
    """Delete the Services and Jobs of attempts up to `newest`, all of which have ended.

    The newest Job is kept if it is inert, because its pods keep the last logs. A Job that is not inert was created
    late, by a request whose response was lost, and would start pods that belong to no attempt.
    """
    kept = {job.name for job in observed.jobs if job.attempt > newest}  # one that a queue holds, and its Service
    services = [s for s in observed.services if s.owned and s.attempt <= newest and s.name not in kept]
    ended = [j for j in observed.jobs if j.owned and j.attempt < newest and j.inert and not j.deleting]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in ended),
        *delete_jobs(active_jobs(observed, newest)),
    )


def remove_orphans(observed: Observed, *, forced: bool) -> tuple[Delete, ...]:
    """Delete the pods of ended attempts whose Job was deleted without them (kubectl delete job --cascade=orphan).

    Without `forced` the operator has no right to delete pods.
    """
    if not forced:
        return ()
    return tuple(Delete("Pod", pod.name, pod.uid) for pod in observed.pods if pod.orphaned)


def remove_owners(observed: Observed, lost: tuple[Delete, ...]) -> tuple[Delete, ...]:
    """Delete the Jobs of pods that are deleted by force, because the Job controller's finalizer keeps such a pod while
    its Job exists. A Job that a queue holds for the next attempt goes as well, and with it its place in the queue.
    """
    uids = {pod.uid for pod in lost}
    owners = {pod.owner_uid for pod in observed.pods if pod.uid in uids}
    return delete_jobs(tuple(job for job in observed.jobs if job.uid in owners and not job.deleting))


def active_jobs(observed: Observed, newest: int) -> tuple[JobFacts, ...]:
    """Jobs of ended attempts, up to `newest`, that may still create pods."""
    return tuple(job for job in observed.jobs if job.owned and job.attempt <= newest and not job.inert)


def remove_late_jobs(observed: Observed, current: int) -> tuple[Delete, ...]:
    """Delete Jobs that were created late while attempt `current` is open: of earlier attempts, and its strays."""
    strays = (job for job in observed.strays if job.attempt == current and not job.inert)
    return delete_jobs((*active_jobs(observed, current - 1), *strays))


def is_stray(observed: Observed, job: JobFacts) -> bool:
    """Whether a Job whose UID is not stored yet must not become its attempt's: the attempt has pods of another Job, so
    there was an earlier one of its name; or the Job is being deleted.
    """
    pods = (pod for pod in observed.live_pods if pod.attempt == job.attempt)
    return job.deleting or any(pod.owner_uid != job.uid for pod in pods)


def delete_jobs(jobs: tuple[JobFacts, ...]) -> tuple[Delete, ...]:
    """The deletion of Jobs that may still create pods."""
    return tuple(Delete("Job", job.name, job.uid, foreground=True) for job in jobs)
