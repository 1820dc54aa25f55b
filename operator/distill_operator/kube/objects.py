"""Converts Kubernetes objects (JSON as dicts) to the values of observed.py. Pure; fields may be missing."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from distill_api.constants import TRAINER_CONTAINER, Component, Label
from distill_api.pod.report import TerminationMessage
from distill_operator.kube import texts
from distill_operator.types.observed import (
    ClaimFacts,
    ContainerEnd,
    Disruption,
    JobFacts,
    Placeholders,
    PodFacts,
    Rejection,
    ServiceFacts,
)

Object = dict[str, Any]

COMPLETION_INDEX = "batch.kubernetes.io/job-completion-index"


def parse_time(text: str) -> datetime:
    """RFC 3339 as the API server writes it."""
    return datetime.fromisoformat(text)


def attempt_of(obj: Object) -> int:
    """The number in the attempt label; 0 without one."""
    text = (obj["metadata"].get("labels") or {}).get(Label.ATTEMPT, "")
    return int(text) if text.isdigit() else 0


def is_placeholder(obj: Object) -> bool:
    """Whether it is a placeholder pod, or the Job of such pods."""
    return bool((obj["metadata"].get("labels") or {}).get(Label.COMPONENT) == Component.PLACEHOLDER)


def owned_by(obj: Object, uid: str) -> bool:
    """Whether the object with this UID is its controller."""
    return any(o.get("uid") == uid and o.get("controller") for o in obj["metadata"].get("ownerReferences") or ())


def pod_facts(pod: Object, *, gone: bool = False) -> PodFacts:
    """A Pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    is_scheduled = scheduled.get("status") == "True"
    waiting = _waiting(status)
    index = (metadata.get("labels") or {}).get(COMPLETION_INDEX) or (metadata.get("annotations") or {}).get(
        COMPLETION_INDEX
    )
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt_of(pod),
        owner_uid=next((o["uid"] for o in metadata.get("ownerReferences") or () if o.get("controller")), ""),
        phase=status.get("phase") or "Pending",
        created_at=parse_time(metadata["creationTimestamp"]),
        rank=int(index) if index is not None else None,
        node=(pod.get("spec") or {}).get("nodeName"),
        ip=status.get("podIP"),
        scheduled_at=parse_time(scheduled["lastTransitionTime"]) if is_scheduled else None,
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
        started_at=_started(status.get("containerStatuses") or ()),
        deleted_at=_deletion_asked(metadata),
        end_due_at=parse_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        disruption=_disruption(conditions.get("DisruptionTarget")),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        waiting=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        end=_end(status.get("containerStatuses") or ()),
        gone=gone,
    )


def of_attempts(pods: Iterable[PodFacts], attempt_by_job: Mapping[str, int]) -> tuple[PodFacts, ...]:
    """The pods, each with the attempt of the Job that created it, or 0 if that Job is not in `attempt_by_job`.

    Pods of an earlier DistillJob with the same name have the same labels.
    """
    return tuple(replace(pod, attempt=attempt_by_job.get(pod.owner_uid, 0)) for pod in pods)


def _deletion_asked(metadata: Object) -> datetime | None:
    if not metadata.get("deletionTimestamp"):
        return None
    grace = timedelta(seconds=metadata.get("deletionGracePeriodSeconds") or 0)
    return parse_time(metadata["deletionTimestamp"]) - grace


def _started(statuses: Iterable[Object]) -> datetime | None:
    states = (s.get("state") or {} for s in statuses if s["name"] == TRAINER_CONTAINER)
    started = ((state.get("running") or {}).get("startedAt") for state in states)
    return next((parse_time(at) for at in started if at), None)


def _disruption(condition: Object | None) -> Disruption | None:
    if condition is None or condition.get("status") != "True":
        return None
    at = parse_time(condition["lastTransitionTime"])
    return Disruption(condition.get("reason", ""), condition.get("message", ""), at)


def _waiting(status: Object) -> Object:
    statuses = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    waiting = [(s.get("state") or {}).get("waiting") for s in statuses]
    return next((w for w in waiting if w and w.get("message")), {})


def _end(statuses: Iterable[Object]) -> ContainerEnd | None:
    ends = [end for end in map(_container_end, statuses) if end is not None]
    trainer = [end for end in ends if end.container == TRAINER_CONTAINER]
    failed = [end for end in ends if end.exit_code != 0]
    return next(iter([*trainer, *failed]), None)


def _container_end(status: Object) -> ContainerEnd | None:
    terminated = (status.get("state") or {}).get("terminated")
    if not terminated or not terminated.get("finishedAt"):
        return None
    return ContainerEnd(
        container=status["name"],
        exit_code=terminated["exitCode"],
        at=parse_time(terminated["finishedAt"]),
        reason=terminated.get("reason") or "",
        report=parse_report(terminated.get("message") or ""),
    )


def parse_report(text: str) -> TerminationMessage | None:
    """A termination message, or None if the container wrote none or only a part of one."""
    try:
        return TerminationMessage.model_validate_json(text)
    except ValidationError:
        return None


def job_facts(job: Object, owner_uid: str) -> JobFacts:
    """A batch/v1 Job."""
    metadata, status = job["metadata"], job.get("status") or {}
    holding = {c["type"]: c for c in status.get("conditions") or () if c.get("status") == "True"}
    failure = holding.get("FailureTarget") or holding.get("Failed")
    return JobFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt_of(job),
        owned=owned_by(job, owner_uid),
        created_at=parse_time(metadata["creationTimestamp"]),
        deleting=bool(metadata.get("deletionTimestamp")),
        suspended=bool((job.get("spec") or {}).get("suspend")),
        complete="Complete" in holding,
        failing_at=parse_time(failure["lastTransitionTime"]) if failure else None,
        failure_reason=failure.get("reason", "") if failure else "",
        failure_message=failure.get("message", "") if failure else "",
    )


def placeholders(jobs: Iterable[Object], pods: Iterable[Object], owner_uid: str) -> Placeholders | None:
    """The placeholders among the children of the DistillJob with this UID."""
    job = next((job_facts(job, owner_uid) for job in jobs if is_placeholder(job) and owned_by(job, owner_uid)), None)
    if job is None:
        return None
    return Placeholders(job, tuple(found for found in map(pod_facts, pods) if found.owner_uid == job.uid))


def service_facts(service: Object, owner_uid: str) -> ServiceFacts:
    """A Service."""
    metadata = service["metadata"]
    return ServiceFacts(metadata["name"], metadata["uid"], attempt_of(service), owned_by(service, owner_uid))


def claim_facts(claim: Object, owner_uid: str) -> ClaimFacts:
    """A PersistentVolumeClaim."""
    metadata = claim["metadata"]
    phase = (claim.get("status") or {}).get("phase") or "Pending"
    return ClaimFacts(
        metadata["name"],
        tuple(claim["spec"].get("accessModes") or ()),
        phase,
        owned=owned_by(claim, owner_uid),
        deleting=bool(metadata.get("deletionTimestamp")),
    )


def rejection_of_pods(job_name: str, messages: Sequence[str]) -> Rejection | None:
    """Why pods of the Job were refused, by the Job controller's FailedCreate events, oldest first.

    This is the newest one, unless one is permanent.
    """
    found = [texts.refusal_of_pod(message) for message in messages]
    rejections = [Rejection(f"pods of Job {job_name}", text, texts.reason_of_refusal(text)) for text in found]
    permanent = [rejection for rejection in rejections if rejection.reason.facts.permanent]
    return next(reversed(permanent or rejections), None)
