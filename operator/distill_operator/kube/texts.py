"""Words and sentences of Kubernetes and of admission webhooks that decisions depend on, and what they mean.

Kubernetes promises none of the sentences, so each is read here and nowhere else, and what is not recognised is never
held against the job: a refusal of an unknown kind is waited for and shown.
"""

import re
from collections.abc import Mapping
from typing import Final

from distill_api.constants import ExitCode
from distill_api.reasons import Reason

# The API server and its admission plugins, on the creation of an object.

_ADMISSION_CODES: Final = frozenset({400, 403, 422})
"""HTTP codes of a refusal; any other error is the API server's own and is retried."""
_INVALID_CODES: Final = frozenset({400, 422})
_OF_WEBHOOKS: Final = ("denied the request", "denied request", "failed calling webhook")
"""Said of admission webhooks, of ValidatingAdmissionPolicies, and of webhooks that cannot be reached, with any code."""
_QUOTA: Final = "exceeded quota"
_NO_RIGHT: Final = "cannot create resource"
_NO_PRIORITY_CLASS: Final = "no PriorityClass with name"
_PERMANENT: Final = re.compile(r'^[\w.]+ "[^"]*" is invalid: |violates PodSecurity')
"""Validation, and the Pod Security Standard of the namespace: they refuse the same object every time."""
_OF_JOB_CONTROLLER: Final = "Error creating: "
"""How the Job controller introduces a refusal of a pod in its events of reason FailedCreate."""


def is_refusal(code: int, message: str) -> bool:
    """Whether an error on a creation is a refusal of the object, and not a failure of the API server or the operator.

    The operator's own missing rights come as a refusal, too, but say nothing about the job.
    """
    if _NO_RIGHT in message:
        return False
    return code in _ADMISSION_CODES or any(text in message for text in _OF_WEBHOOKS)


def reason_of_refusal(message: str, code: int | None = None) -> Reason:
    """PodRejected for what is refused every time, else what the job waits for. Events have no code."""
    if _QUOTA in message:
        return Reason.QUOTA_EXCEEDED
    if any(text in message for text in _OF_WEBHOOKS):
        return Reason.NOT_ADMITTED
    return Reason.POD_REJECTED if code in _INVALID_CODES or _PERMANENT.search(message) else Reason.NOT_ADMITTED


def refusal_of_pod(event_message: str) -> str:
    """What was said about the pod, out of an event FailedCreate."""
    return event_message.removeprefix(_OF_JOB_CONTROLLER)


def names_missing_priority_class(message: str) -> bool:
    """Whether an object is refused because its PriorityClass does not exist."""
    return _NO_PRIORITY_CLASS in message


# The kubelet and the container runtime.

OOM_KILLED: Final = "OOMKilled"
IMAGE_PULL: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
"""Reasons of a container that waits for its image."""

# Who ends pods: reasons of the condition DisruptionTarget.

_DISRUPTIONS: Final[Mapping[str, Reason]] = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "EvictionByEvictionAPI": Reason.EVICTED,
    "TerminationByKubelet": Reason.EVICTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}


def reason_of_disruption(word: str) -> Reason:
    """What a DisruptionTarget means; a kind that is not known yet is an eviction."""
    return _DISRUPTIONS.get(word, Reason.EVICTED)


# The Job controller, in the condition of a Job that failed. It names a pod that may be gone by now.

_DISRUPTION_TARGET: Final = "DisruptionTarget"
_PERMANENT_EXIT: Final = f"exit code {int(ExitCode.PERMANENT)}"
_POD_NAME: Final = re.compile(r"[Pp]od (?P<namespace>[^/\s]+)/(?P<name>\S+)")


def reason_of_failed_job(word: str, message: str) -> Reason:
    """Why a Job failed, by its condition alone.

    A pod that failed by itself stays listed as long as its Job; so a Job that ran out of retries without any such pod
    lost it to a deletion.
    """
    if word == "PodFailurePolicy" and _DISRUPTION_TARGET in message:
        return Reason.DISRUPTED
    if word == "PodFailurePolicy" and _PERMANENT_EXIT in message:
        return Reason.CONFIG_INVALID
    return Reason.POD_DELETED if word == "BackoffLimitExceeded" else Reason.TRAINER_ERROR


def disrupted_pod(message: str) -> str | None:
    """Name of the pod whose disruption failed the Job; None when something else did."""
    match = _POD_NAME.search(message) if _DISRUPTION_TARGET in message else None
    return match["name"] if match is not None else None


# Reasons of events that the operator looks for.

POD_NOT_CREATED: Final = "FailedCreate"
"""By the Job controller, about a Job."""
POD_PREEMPTED: Final = "Preempted"
"""By the scheduler, about a pod that it preempted."""
