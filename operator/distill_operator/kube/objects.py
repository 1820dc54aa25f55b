"""Converts Kubernetes objects (JSON as dicts) to the values of observed.py. Pure; fields may be missing."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from distill_api.constants import (
    AVOIDED_NODES,
    COMPLETION_INDEX,
    JOB_NAME,
    JOB_NAME_LENGTH,
    KIND,
    TRAINER_CONTAINER,
    Component,
    Label,
)
from distill_api.pod.report import TerminationMessage
from distill_operator.kube import texts
from distill_operator.types.observed import (
    ClaimFacts,
    ContainerEnd,
    Disruption,
    JobFacts,
    Placeholders,
    PodFacts,
    ServiceFacts,
)

Object = dict[str, Any]

RESTARTED = frozenset({"Always", "OnFailure"})
"""Restart policies of an init container whose ends are no end of its pod."""
NEVER = datetime(1971, 1, 1, tzinfo=UTC)
"""Container runtimes write 1970 as the start of a container that they could not start."""


def image_volumes(job: Object) -> set[str]:
    """Names of the image volumes of a Job's pods; empty for other objects."""
    template = (job.get("spec") or {}).get("template") or {}
    return {volume["name"] for volume in (template.get("spec") or {}).get("volumes") or () if "image" in volume}


def parse_time(text: str) -> datetime:
    """RFC 3339 as the API server writes it."""
    return datetime.fromisoformat(text)


def attempt_of(obj: Object) -> int:
    """The number in the attempt label; 0 without one."""
    return _number(_labels(obj).get(Label.ATTEMPT)) or 0


def _labels(obj: Object) -> dict[str, str]:
    return obj["metadata"].get("labels") or {}


def _number(text: str | None) -> int | None:
    """The number in a label, which anybody may have set; None if it is none."""
    return int(text) if text is not None and text.isascii() and text.isdigit() and len(text) < 10 else None


def is_placeholder(obj: Object) -> bool:
    """Whether it is a placeholder pod, or the Job of such pods."""
    return bool(_labels(obj).get(Label.COMPONENT) == Component.PLACEHOLDER)


def _controller(obj: Object) -> Object:
    """The reference to the object that controls this one, of which there is at most one; empty without one."""
    owners: list[Object] = obj["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), {})


def job_of_child(obj: Object) -> str | None:
    """Name of the DistillJob that a Job or pod was created for; None if it only has the label."""
    name = _labels(obj).get(Label.JOB) or ""
    if re.fullmatch(JOB_NAME, name) is None or len(name) > JOB_NAME_LENGTH:
        return None
    owner = _controller(obj)
    if owner.get("kind") == KIND or _labels(obj).get(Label.UID):
        return name
    made_by_attempt = owner.get("kind") == "Job" and re.fullmatch(rf"{name}-(a\d+|grow)", owner.get("name", ""))
    return name if made_by_attempt else None


def owned_by(obj: Object, uid: str) -> bool:
    """Whether the object with this UID is its controller."""
    return bool(_controller(obj).get("uid") == uid)


def is_claim_of(claim: Object, uid: str) -> bool:
    """Whether a claim was made for the DistillJob with this UID. One that is retained has labels and no owner."""
    return owned_by(claim, uid) or (not _controller(claim) and _labels(claim).get(Label.UID) == uid)


def is_deleting(obj: Object) -> bool:
    """Whether its deletion was requested."""
    return bool(obj["metadata"].get("deletionTimestamp"))


def pod_facts(pod: Object, *, gone: bool = False) -> PodFacts:
    """A Pod."""
    metadata, status = pod["metadata"], pod.get("status") or {}
    conditions = {c["type"]: c for c in status.get("conditions") or ()}
    scheduled = conditions.get("PodScheduled") or {}
    is_scheduled = scheduled.get("status") == "True"
    waiting = _waiting(status)
    index = _labels(pod).get(COMPLETION_INDEX) or (metadata.get("annotations") or {}).get(COMPLETION_INDEX)
    return PodFacts(
        name=metadata["name"],
        uid=metadata["uid"],
        attempt=attempt_of(pod),
        owner_uid=_controller(pod).get("uid", ""),
        job_uid=_labels(pod).get(Label.UID, ""),
        phase=status.get("phase") or "Pending",
        created_at=parse_time(metadata["creationTimestamp"]),
        rank=_number(index),
        node=(pod.get("spec") or {}).get("nodeName"),
        ip=status.get("podIP"),
        scheduled_at=parse_time(scheduled["lastTransitionTime"]) if is_scheduled else None,
        unschedulable=scheduled.get("message", "") if scheduled.get("reason") == "Unschedulable" else None,
        started_at=_started(status.get("containerStatuses") or ()),
        ready=any(s["name"] == TRAINER_CONTAINER and s.get("ready") for s in status.get("containerStatuses") or ()),
        deleted_at=_deletion_asked(metadata),
        end_due_at=parse_time(metadata["deletionTimestamp"]) if metadata.get("deletionTimestamp") else None,
        disruption=_disruption(conditions.get("DisruptionTarget")),
        reason=status.get("reason") or "",
        message=status.get("message") or "",
        sandbox_ready=(conditions.get("PodReadyToStartContainers") or {}).get("status") == "True",
        waiting=waiting.get("reason") or "",
        waiting_message=waiting.get("message") or "",
        end=_end(pod.get("spec") or {}, status),
        gone=gone,
    )


def of_attempts(pods: Iterable[PodFacts], attempt_by_job: Mapping[str, int], uid: str) -> tuple[PodFacts, ...]:
    """The pods, each with its attempt: the one in the labels of a pod of the DistillJob with this UID, or else that of
    the Job that created it. 0 for the pods of an earlier DistillJob with the same name.
    """

    def attempt(pod: PodFacts) -> int:
        labelled = pod.attempt if pod.job_uid == uid else 0
        return labelled or attempt_by_job.get(pod.owner_uid, 0)

    return tuple(replace(pod, attempt=attempt(pod)) for pod in pods)


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


def _end(spec: Object, status: Object) -> ContainerEnd | None:
    """The end of the pod's container that counts: an init container's that failed, because then the trainer never ran;
    else the trainer's; else another one's that failed.
    """
    restarted = {c["name"] for c in spec.get("initContainers") or () if c.get("restartPolicy") in RESTARTED}
    main = status.get("containerStatuses") or ()
    init = [s for s in status.get("initContainerStatuses") or () if s["name"] not in restarted]
    trainer_ran = any(_has_run(s) for s in main if s["name"] == TRAINER_CONTAINER)
    ends = [end for end in map(_container_end, main) if end is not None]
    trainer = [end for end in ends if end.container == TRAINER_CONTAINER]
    failed = [end for end in ends if end.exit_code != 0]
    before = [replace(end, init=True) for end in map(_container_end, init) if end is not None and end.exit_code != 0]
    return next(iter([*([] if trainer_ran else before), *trainer, *failed]), None)


def _has_run(status: Object) -> bool:
    """Whether the container has run: the kubelet also writes ends of containers that it never started."""
    state = status.get("state") or {}
    started = (state.get("terminated") or {}).get("startedAt") or ""
    return bool(state.get("running")) or (bool(started) and parse_time(started) > NEVER)


def _container_end(status: Object) -> ContainerEnd | None:
    terminated = (status.get("state") or {}).get("terminated")
    if not terminated or not terminated.get("finishedAt"):
        return None
    is_trainer = status["name"] == TRAINER_CONTAINER
    reason, message = terminated.get("reason") or "", terminated.get("message") or ""
    return ContainerEnd(
        container=status["name"],
        exit_code=terminated["exitCode"],
        at=parse_time(terminated["finishedAt"]),
        reason=reason,
        report=parse_report(message) if is_trainer else None,
        message=message if reason in texts.NEVER_STARTED else "",
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
        nodes=(job.get("spec") or {}).get("completions") or 0,
        avoids=tuple(filter(None, (metadata.get("annotations") or {}).get(AVOIDED_NODES, "").split(","))),
        deleting=is_deleting(job),
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
        owned=is_claim_of(claim, owner_uid),
        deleting=is_deleting(claim),
    )
