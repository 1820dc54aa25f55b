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

_PASSING_CODES: Final = frozenset({401, 408, 409, 429})
"""HTTP codes below 500 that say nothing about the object: the same request is made again."""
_OF_WEBHOOKS: Final = ("denied the request", "denied request", "failed calling webhook")
"""From webhooks and admission policies that deny, and about webhooks that fail. They may have any code."""
_QUOTA: Final = "exceeded quota: "
_NO_PRIORITY_CLASS: Final = "no PriorityClass with name"
_TOO_LARGE_FOR_ETCD: Final = "etcdserver: request is too large"

# The allow-list of refusals that every further request would meet, too. Whatever else is refused is waited for.

_PERMANENT: Final = frozenset({(400, "BadRequest"), (413, "RequestEntityTooLarge"), (422, "Invalid")})
"""Codes and reasons of the API server itself. A proxy's answer has no reason; a webhook's is told by its text."""
_PERMANENT_TEXT: Final = re.compile(
    r'^[\w.]+ "[^"]*" is invalid: |^pods "[^"]*" is forbidden: violates PodSecurity "'
    rf"|^Request entity too large: limit is |^{_TOO_LARGE_FOR_ETCD}"
)
"""The same in a message, for events, which have no code; and from Pod Security admission."""

NO_IMAGE_VOLUMES: Final = (
    "this cluster has no image volumes, so the API server drops the volume {volumes}; use Kubernetes 1.35, enable the"
    " feature gate ImageVolume (from 1.33), or use a claim"
)
"""The operator's own words: the API server drops fields of a disabled feature and says nothing."""

_OF_JOB_CONTROLLER: Final = re.compile(r"^(?:\(combined from similar events\): )?Error creating: ")
"""Beginning of the Job controller's FailedCreate events, of which similar ones are combined after the tenth."""


def is_refusal(code: int, message: str) -> bool:
    """Whether an error of a create request is a refusal to be shown, and no failure that the next request may not meet.

    Missing RBAC permissions of the operator are such a refusal: the job waits for them.
    """
    about_object = 400 <= code < 500 and code not in _PASSING_CODES
    return about_object or _of_webhook(message) or message.startswith(_TOO_LARGE_FOR_ETCD)


def reason_of_refusal(message: str, code: int | None = None, kubernetes_reason: str = "") -> Reason:
    """PodRejected if the object would be refused every time, else what the job waits for. Events have no code."""
    if _of_webhook(message):
        return Reason.NOT_ADMITTED
    if _QUOTA in message:
        return Reason.QUOTA_EXCEEDED
    permanent = (code, kubernetes_reason) in _PERMANENT or _PERMANENT_TEXT.search(message)
    return Reason.POD_REJECTED if permanent else Reason.NOT_ADMITTED


def _of_webhook(message: str) -> bool:
    return any(text in message for text in _OF_WEBHOOKS)


def refusal_of_pod(event_message: str) -> str:
    """Why a pod was refused, from the message of a FailedCreate event."""
    return _OF_JOB_CONTROLLER.sub("", event_message)


def names_missing_priority_class(message: str) -> bool:
    """Whether an object was refused because its PriorityClass does not exist."""
    return _NO_PRIORITY_CLASS in message


# The kubelet and the container runtime.

OOM_KILLED: Final = "OOMKilled"
NEVER_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
"""Reasons of the end of a container that its runtime could not start, such as for a command that does not exist."""
START_EVENTS: Final = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox"})
"""Reasons of events about a pod that has a node and waits for its volumes or its network; its status says nothing."""

_IMAGE_PULL: Final = frozenset(
    {"ImagePullBackOff", "ErrImagePull", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError"}
    | {"RegistryUnavailable", "SignatureValidationFailed"}
)
_CONTAINER: Final = frozenset(
    {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
    | {"PreCreateHookError", "PreStartHookError", "PostStartHookError"}
)
_BAD_IMAGE_NAME: Final = frozenset({"InvalidImageName", "ErrImageNeverPull"})
_NO_SUCH_IMAGE: Final = re.compile(
    r"not found|manifest unknown|no such image|does not exist|denied|unauthori[sz]ed|authorization failed"
    r"|no basic auth|no match for platform|invalid reference",
    re.IGNORECASE,
)
"""From registries that answer: another try would meet the same."""
_PULL_WITHOUT_CAUSE: Final = re.compile(r'^Back-off pulling image "[^"]*"$')
"""While the kubelet waits before its next try; later versions add why the last one failed."""
_NO_SUCH_OBJECT: Final = re.compile(r'(?:secret|configmap) "[^"]*" not found|references non-existent|type check failed')
_NODE_IS_BUSY: Final = re.compile(r"deadline exceeded|is reserved for")


def reason_of_start(waiting: str) -> Reason | None:
    """Why a container does not start, by the kubelet's word; None if it only takes its time."""
    if waiting in _IMAGE_PULL:
        return Reason.IMAGE_PULL
    return Reason.POD_CANNOT_START if waiting in _CONTAINER | START_EVENTS else None


def lasts(waiting: str, message: str) -> bool | None:
    """Whether the cause lasts until somebody repairs something; None if the message does not tell."""
    if waiting in _CONTAINER:
        return not _NODE_IS_BUSY.search(message)
    if waiting in START_EVENTS:
        return bool(_NO_SUCH_OBJECT.search(message))
    if waiting not in _IMAGE_PULL or _PULL_WITHOUT_CAUSE.search(message):
        return None
    return waiting in _BAD_IMAGE_NAME or bool(_NO_SUCH_IMAGE.search(message))


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
_EXIT_CODE: Final = re.compile(r"\bexit code (?P<code>\d+)\b")
_POD_NAME: Final = re.compile(r"[Pp]od (?P<namespace>[^/\s]+)/(?P<name>\S+)")


def reason_of_failed_job(kubernetes_reason: str, message: str) -> Reason:
    """Why a Job without pods failed, by its condition.

    A pod that failed by itself is kept as long as its Job, so if the Job exceeded its backoff limit and has no such
    pod, the pod was deleted.
    """
    if kubernetes_reason == "PodFailurePolicy" and _DISRUPTION_TARGET in message:
        return Reason.DISRUPTED
    if exit_code_of_failed_job(kubernetes_reason, message) == ExitCode.PERMANENT:
        return Reason.CONFIG_INVALID
    return Reason.POD_DELETED if kubernetes_reason == "BackoffLimitExceeded" else Reason.TRAINER_ERROR


def exit_code_of_failed_job(kubernetes_reason: str, message: str) -> int | None:
    """The exit code for which a rule of its podFailurePolicy failed the Job; None if something else did."""
    match = _EXIT_CODE.search(message) if kubernetes_reason == "PodFailurePolicy" else None
    return int(match["code"]) if match is not None and _DISRUPTION_TARGET not in message else None


def disrupted_pod(message: str) -> str | None:
    """Name of the pod whose disruption failed the Job; None if something else did."""
    match = _POD_NAME.search(message) if _DISRUPTION_TARGET in message else None
    return match["name"] if match is not None else None


# Reasons of events that the operator reads.

POD_NOT_CREATED: Final = "FailedCreate"
"""By the Job controller, about a Job."""
POD_PREEMPTED: Final = "Preempted"
"""By the scheduler, about a pod that it preempted."""
