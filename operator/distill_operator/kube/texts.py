"""Reasons and messages of Kubernetes and of admission webhooks that decisions depend on.

Kubernetes does not guarantee its messages, so they are matched in this module only, and a message that matches nothing
never fails the job: the job waits after an unknown refusal and shows its text.
"""

import re
from collections.abc import Mapping
from typing import Final

from distill_api.constants import ExitCode
from distill_api.reasons import Reason

# The API server and its admission plugins refuse to create an object.

_ADMISSION_CODES: Final = frozenset({400, 403, 422})
"""HTTP codes of a refusal; any other error is a failure of the API server and is retried."""
_INVALID_CODES: Final = frozenset({400, 422})
_OF_WEBHOOKS: Final = ("denied the request", "denied request", "failed calling webhook")
"""From webhooks and ValidatingAdmissionPolicies that deny, and about webhooks that fail. They may have any code."""
_QUOTA: Final = "exceeded quota"
_NO_PERMISSION: Final = "cannot create resource"
_NO_PRIORITY_CLASS: Final = "no PriorityClass with name"
_PERMANENT: Final = re.compile(r'^[\w.]+ "[^"]*" is invalid: |violates PodSecurity')
"""From validation and from Pod Security admission, which refuse the same object every time."""
_OF_JOB_CONTROLLER: Final = "Error creating: "
"""Prefix of the Job controller's FailedCreate events."""


def is_refusal(code: int, message: str) -> bool:
    """Whether an error of a create request is a refusal of the object, and no failure of the API server.

    Missing RBAC permissions of the operator have the code of a refusal, but say nothing about the object.
    """
    if _NO_PERMISSION in message:
        return False
    return code in _ADMISSION_CODES or any(text in message for text in _OF_WEBHOOKS)


def reason_of_refusal(message: str, code: int | None = None) -> Reason:
    """PodRejected if the object would be refused every time, else what the job waits for. Events have no code."""
    if _QUOTA in message:
        return Reason.QUOTA_EXCEEDED
    if any(text in message for text in _OF_WEBHOOKS):
        return Reason.NOT_ADMITTED
    return Reason.POD_REJECTED if code in _INVALID_CODES or _PERMANENT.search(message) else Reason.NOT_ADMITTED


def refusal_of_pod(event_message: str) -> str:
    """Why a pod was refused, from the message of a FailedCreate event."""
    return event_message.removeprefix(_OF_JOB_CONTROLLER)


def names_missing_priority_class(message: str) -> bool:
    """Whether an object was refused because its PriorityClass does not exist."""
    return _NO_PRIORITY_CLASS in message


# The kubelet and the container runtime.

OOM_KILLED: Final = "OOMKilled"
IMAGE_PULL: Final = frozenset({"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull"})
"""Reasons of a container that cannot pull its image."""

# Reasons of the pod condition DisruptionTarget.

_DISRUPTIONS: Final[Mapping[str, Reason]] = {
    "PreemptionByScheduler": Reason.PREEMPTED,
    "EvictionByEvictionAPI": Reason.EVICTED,
    "TerminationByKubelet": Reason.EVICTED,
    "DeletionByTaintManager": Reason.NODE_LOST,
    "DeletionByPodGC": Reason.NODE_LOST,
}


def reason_of_disruption(kubernetes_reason: str) -> Reason:
    """The reason for a DisruptionTarget condition; unknown kinds count as evictions."""
    return _DISRUPTIONS.get(kubernetes_reason, Reason.EVICTED)


# The condition of a failed Job, by the Job controller. It names a pod that may be gone.

_DISRUPTION_TARGET: Final = "DisruptionTarget"
_PERMANENT_EXIT: Final = f"exit code {int(ExitCode.PERMANENT)}"
_POD_NAME: Final = re.compile(r"[Pp]od (?P<namespace>[^/\s]+)/(?P<name>\S+)")


def reason_of_failed_job(kubernetes_reason: str, message: str) -> Reason:
    """Why a Job without pods failed, by its condition.

    A pod that failed by itself is kept as long as its Job, so if the Job exceeded its backoff limit and has no such
    pod, the pod was deleted.
    """
    if kubernetes_reason == "PodFailurePolicy" and _DISRUPTION_TARGET in message:
        return Reason.DISRUPTED
    if kubernetes_reason == "PodFailurePolicy" and _PERMANENT_EXIT in message:
        return Reason.CONFIG_INVALID
    return Reason.POD_DELETED if kubernetes_reason == "BackoffLimitExceeded" else Reason.TRAINER_ERROR


def disrupted_pod(message: str) -> str | None:
    """Name of the pod whose disruption failed the Job; None if something else did."""
    match = _POD_NAME.search(message) if _DISRUPTION_TARGET in message else None
    return match["name"] if match is not None else None


# Reasons of events that the operator reads.

POD_NOT_CREATED: Final = "FailedCreate"
"""By the Job controller, about a Job."""
POD_PREEMPTED: Final = "Preempted"
"""By the scheduler, about a pod that it preempted."""
