"""The rules for Succeeded and Failed: the status is final; leftovers are deleted and the TTL applies."""

from datetime import datetime

from distill_api.constants import KIND
from distill_operator.policies.lifetime import ttl
from distill_operator.types.actions import Action, Delete, Plan
from distill_operator.types.observed import Observed


def plan(observed: Observed, now: datetime) -> Plan:
    """Delete the Services and all Jobs but the last, whose pods keep their logs; then wait for the TTL."""
    status = observed.job.status
    left = ttl.seconds_left(observed.job.spec.ttl_seconds_after_finished, status.finished_at, now)
    if left == 0.0:
        return Plan(actions=(Delete(KIND, observed.name, observed.uid),))
    return Plan(actions=_leftovers(observed), wake_after=left)


def _leftovers(observed: Observed) -> tuple[Action, ...]:
    newest = observed.job.status.attempt
    services = [service for service in observed.services if service.owned]
    jobs = [job for job in observed.jobs if job.owned and not job.deleting]
    finished_last = [job for job in jobs if job.attempt == newest and job.inert]
    held = observed.placeholders
    if held is not None and not held.job.deleting:
        jobs = [*jobs, held.job]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in jobs if job not in finished_last),
    )
