"""Checks a job on its cluster before it is created: a DistillJob that checks and trains nothing, deleted at its end."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from distill_api.constants import API_VERSION, JOB_NAME_LENGTH, KIND, TRAINER_CONTAINER, ConditionType, Phase
from distill_api.reading.quantity import amount
from distill_api.reasons import Reason
from distill_api.spec.rules.across import trainers_resources
from distill_client.apiserver.kinds import Object
from distill_client.errors import NotFound, TimedOut
from distill_client.job import Job
from distill_client.watching import watch

if TYPE_CHECKING:
    from distill_client.client import Client

UNSEEN_SECONDS: Final = 60.0
"""How long to wait for an operator to see the check."""
TTL_SECONDS: Final = 300
"""After which the cluster deletes a finished check whose command was killed."""
REQUESTS: Final = {"cpu": "500m", "memory": "2Gi"}
"""What the pod of a check requests at most where its job has limits: it goes where there is little room."""
_QUEUE: Final = "kueue.x-k8s.io/"
_OF_THE_TRAINING: Final = (
    "elastic", "resources", "dataCache", "persistentVolumeClaimRetentionPolicy", "suspend", "activeDeadlineSeconds",
    "cleanPodPolicy",
)  # fmt: skip
"""Fields of spec that a check has its defaults for."""


@dataclass(frozen=True)
class Check:
    """What a check has found."""

    passed: bool
    reason: Reason
    message: str
    """What was found, or what is wrong, where, and what to do."""


def check_of(job: Mapping[str, Any], suffix: str) -> Object:
    """The document of a check of this one: its image, volumes, files and scheduling, in one pod without accelerators.

    It is in no queue, because it is to say before the queue what would be wrong after it, and it has no annotations, by
    which others might take it for theirs. It is tried again after a disruption, and after no failure.
    """
    spec = job["spec"]
    checked = {
        **{name: value for name, value in spec.items() if name not in _OF_THE_TRAINING},
        "checkOnly": True,
        "nodes": 1,
        "accelerators": {"perNode": 0},
        "device": "cpu",
        "training": {**(spec.get("training") or {}), "workers": 0, "compile": False},
        "recovery": {**(spec.get("recovery") or {}), "maxFailures": 0},
        "ttlSecondsAfterFinished": TTL_SECONDS,
    }
    if limits := _limits(spec):
        asked = {name: min(REQUESTS[name], limit, key=amount) for name, limit in limits.items()}
        checked["resources"] = {"requests": asked, "limits": limits}
    if (template := spec.get("template")) is not None:
        checked["template"] = _without_resources(template)
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": _metadata(job, suffix), "spec": checked}


def _metadata(job: Mapping[str, Any], suffix: str) -> Object:
    metadata, ending = job["metadata"], f"-check-{suffix}"
    labels = {key: value for key, value in (metadata.get("labels") or {}).items() if not key.startswith(_QUEUE)}
    name = metadata["name"][: JOB_NAME_LENGTH - len(ending)].rstrip("-") + ending
    optional = {"namespace": metadata.get("namespace"), "labels": labels}
    return {"name": name, **{field: value for field, value in optional.items() if value}}


def _limits(spec: Mapping[str, Any]) -> dict[str, str]:
    """The job's limits of CPU and memory: without one, those of the namespace would hold, which may be too small."""
    places = (spec.get("resources") or {}, *trainers_resources(spec.get("template")))
    given = [(place.get("limits") or {}) for place in places]
    return {name: str(limits[name]) for limits in given for name in REQUESTS if name in limits}


def _without_resources(template: Mapping[str, Any]) -> Object:
    """The template without the training container's resources, such as network devices that come with accelerators."""
    pod = template.get("spec") or {}
    containers = [
        {key: value for key, value in container.items() if key != "resources"}
        if container.get("name") == TRAINER_CONTAINER
        else container
        for container in pod.get("containers") or ()
    ]
    return {**template, "spec": {**pod, **({"containers": containers} if containers else {})}}


def run_check(
    client: Client, job: Mapping[str, Any], timeout: float, told: Callable[[Job], None] = lambda _: None
) -> Check:
    """Create the check of a job's document, wait for its end, and delete it, however this ends.

    `told` is called with each state of the check. Raises TimedOut after `timeout` seconds, with what it waits for, and
    ClientError.
    """
    made = client.create(check_of(job, secrets.token_hex(3)))
    began, newest = time.monotonic(), made
    try:
        for newest in _states(client, made.name, began + timeout):
            told(newest)
            if (found := _found(newest)) is not None:
                return found
        client.get(made.name)  # raises NotFound if somebody deleted it
        took, why = time.monotonic() - began, state(newest) or "no operator has seen it"
        raise TimedOut(
            f"the check {made.name} has not ended after {took:.0f} s: {why}",
            "distill doctor checks the operator; a longer --timeout waits for a node or an image",
        )
    finally:
        with suppress(NotFound):
            client.delete(made.name, uid=made.uid)


def _states(client: Client, name: str, deadline: float) -> Iterator[Job]:
    """Each state of the check up to `deadline`, or for UNSEEN_SECONDS if no operator sees it."""
    for job in watch(client.connection, name, min(deadline, time.monotonic() + UNSEEN_SECONDS)):
        if state(job):
            yield from watch(client.connection, name, deadline)
            return


def state(job: Job) -> str:
    """What the operator says of a job in one line; empty until it has seen it."""
    condition = job.condition(ConditionType.RUNNING)
    return f"{condition.reason}: {condition.message}" if condition is not None else ""


def _found(job: Job) -> Check | None:
    """What the check has found; None while that is not known. What waits for somebody's change is wrong."""
    waiting = job.status.waiting
    if waiting is not None and waiting.reason.facts.needs_change:
        return Check(False, waiting.reason, waiting.message)
    ended = {Phase.SUCCEEDED: ConditionType.COMPLETE, Phase.FAILED: ConditionType.FAILED}.get(job.phase)
    condition = job.condition(ended) if ended is not None else None
    if condition is not None:
        return Check(job.phase == Phase.SUCCEEDED, Reason.read(condition.reason), condition.message)
    unstartable = (a for a in job.status.attempts if a.reason is not None and a.reason.facts.cannot_start)
    attempt = next(unstartable, None)
    return Check(False, attempt.reason, attempt.message or "") if attempt is not None and attempt.reason else None
