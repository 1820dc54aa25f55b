"""The rules for Succeeded and Failed: only observedGeneration changes; leftovers are deleted and the TTL applies."""

from datetime import datetime

from distill_api.constants import KIND
from distill_api.status import DistillJobStatus
from distill_operator.policies.lifetime import ttl
from distill_operator.types.actions import Action, Delete, Plan
from distill_operator.types.observed import Observed


def plan(observed: Observed, now: datetime) -> Plan:
    """Delete the Services and all Jobs, but the last if its pods are to keep their logs; then wait for the TTL."""
    status = observed.job.status
    left = ttl.seconds_left(observed.job.spec.ttl_seconds_after_finished, status.finished_at, now)
    if left == 0.0:
        return Plan(actions=(Delete(KIND, observed.name, observed.uid),))
    generation = observed.job.metadata.generation
    seen = None if status.observed_generation == generation else _seen(status, generation)
    return Plan(seen, actions=_leftovers(observed), wake_after=left)


def _seen(status: DistillJobStatus, generation: int | None) -> DistillJobStatus:
    """The status of a job whose spec was changed after its end, such as its TTL: nothing else changes."""
    return status.model_copy(update={"observed_generation": generation})


def _leftovers(observed: Observed) -> tuple[Action, ...]:
    newest = observed.job.status.attempt
    services = [service for service in observed.services if service.owned]
    jobs = [job for job in observed.jobs if job.owned and not job.deleting]
    keeps_logs = observed.job.spec.clean_pod_policy == "None"
    finished_last = [job for job in jobs if keeps_logs and job.attempt == newest and job.inert]
    held = observed.placeholders
    if held is not None and not held.job.deleting:
        jobs = [*jobs, held.job]
    return (
        *(Delete("Service", service.name, service.uid) for service in services),
        *(Delete("Job", job.name, job.uid) for job in jobs if job not in finished_last),
    )
