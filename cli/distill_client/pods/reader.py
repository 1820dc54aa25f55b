"""The reader: a short-lived pod with a job's checkpoints claim mounted read-only, without GPUs and without a token."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final

from distill_api.constants import API_VERSION, KIND, TRAINER_CONTAINER, TRAINER_USER
from distill_api.constants import Path as PodPath
from distill_client.apiserver.kinds import Object, path
from distill_client.client import Client, node_rank
from distill_client.errors import ClientError, Forbidden, NotFound, TimedOut
from distill_client.installation import operators, setting
from distill_client.job import Job

READER_SECONDS: Final = 3600
"""After which a reader pod ends by itself, should nobody delete it."""
START_SECONDS: Final = 180.0
_IDLE: Final = ("-c", f"import time; time.sleep({READER_SECONDS})")


def running_rank_0(client: Client, job: Job) -> str | None:
    """The name of the pod in which rank 0 runs."""
    pods = (pod for pod in client.pods(job.name) if node_rank(pod) == 0 and runs(pod))
    return next((str(pod["metadata"]["name"]) for pod in pods), None)


@contextmanager
def reader(
    client: Client,
    job: Job,
    program: Sequence[str] = _IDLE,
    *,
    image: str | None = None,
    timeout: float = START_SECONDS,
) -> Iterator[str]:
    """The name of a reader pod that runs a Python program; it is deleted at the end of the block. Raises ClientError.

    `image`: has Python; default: the job's, or the operator's trainer image.
    """
    pod = reader_pod(job, image or _image(client, job), program)
    name = pod["metadata"]["name"]
    client.connection.request("POST", path("Pod", job.namespace), body=pod)
    try:
        _wait_for(client, job.namespace, name, timeout)
        yield name
    finally:
        with suppress(NotFound):
            client.connection.request("DELETE", path("Pod", job.namespace, name), body={"gracePeriodSeconds": 0})


def reader_pod(job: Job, image: str, program: Sequence[str] = _IDLE) -> Object:
    """A pod that runs a Python program and has the checkpoints claim read-only, with no label of a training pod."""
    volume = job.spec.volumes.checkpoints
    mount = {"name": "checkpoints", "mountPath": PodPath.CHECKPOINTS, "readOnly": True}
    claim = {"claimName": job.claims["checkpoints"], "readOnly": True}
    owner = {"apiVersion": API_VERSION, "kind": KIND, "name": job.name, "uid": job.uid}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{job.name[:40]}-reader-{secrets.token_hex(3)}",
            "labels": {"app.kubernetes.io/managed-by": "distill-cli", "app.kubernetes.io/component": "reader"},
            "ownerReferences": [owner],
        },
        "spec": {
            "restartPolicy": "Never",
            "activeDeadlineSeconds": READER_SECONDS,
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            "imagePullSecrets": [secret.to_wire() for secret in job.spec.image_pull_secrets],
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": TRAINER_USER,
                "runAsGroup": TRAINER_USER,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "containers": [
                {
                    "name": "reader",
                    "image": image,
                    "command": ["python3", *program],
                    "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}},
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [mount | ({"subPath": volume.sub_path} if volume.sub_path else {})],
                }
            ],
            "volumes": [{"name": "checkpoints", "persistentVolumeClaim": claim}],
        },
    }


def runs(pod: Object) -> bool:
    """Whether the pod's containers run, and nobody has deleted it."""
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _image(client: Client, job: Job) -> str:
    containers = ((job.spec.template or {}).get("spec") or {}).get("containers") or ()
    own = next((c["image"] for c in containers if c.get("name") == TRAINER_CONTAINER and c.get("image")), None)
    if own or job.spec.image:
        return str(own or job.spec.image)
    for pod in client.pods(job.name):
        return str(next(c["image"] for c in pod["spec"]["containers"] if c["name"] == TRAINER_CONTAINER))
    try:
        images = [image for pod in operators(client) if (image := setting(pod, "DEFAULT_TRAINER_IMAGE"))]
    except Forbidden:
        images = []
    if not images:
        raise ClientError("it is not known which image can read the claim", "name one that has Python with --image")
    return images[0]


def _wait_for(client: Client, namespace: str, name: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        pod = client.connection.request("GET", path("Pod", namespace, name))
        if runs(pod):
            return
        if time.monotonic() > deadline or (pod.get("status") or {}).get("phase") in ("Failed", "Succeeded"):
            raise TimedOut(
                f"reader pod {name} does not run: {_why(pod)}", "kubectl describe pod shows what it waits for"
            )
        time.sleep(0.5)


def _why(pod: Object) -> str:
    status = pod.get("status") or {}
    states = (c.get("state", {}).get("waiting", {}) for c in status.get("containerStatuses") or ())
    waiting = next((f"{s.get('reason')}: {s.get('message', '')}" for s in states if s), "")
    conditions = (c.get("message") for c in status.get("conditions") or () if c.get("status") == "False")
    return " ".join((waiting or next(filter(None, conditions), None) or str(status.get("phase"))).split())
