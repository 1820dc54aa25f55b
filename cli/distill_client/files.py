"""Reads files of a job from its checkpoints claim: in rank 0's pod while it runs, else in a short-lived reader pod."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final
from urllib.parse import urlencode

from distill_api.constants import API_VERSION, KIND, TRAINER_CONTAINER, TRAINER_USER
from distill_api.constants import Path as PodPath
from distill_client.client import Client, node_rank
from distill_client.errors import ClientError, Forbidden, NotFound, TimedOut, Unreachable
from distill_client.installation import operators, setting
from distill_client.job import Job
from distill_client.kinds import Object, path

READER_SECONDS: Final = 3600
"""After which a reader pod ends by itself, should nobody delete it."""
START_SECONDS: Final = 180.0
SILENT_SECONDS: Final = 60.0
_LIST = (
    "import json,os,sys\n"
    "root=sys.argv[1]\n"
    "if not os.path.isdir(root): sys.exit('no such directory: '+root)\n"
    "walk=[os.path.join(d,f) for d,_,fs in os.walk(root) for f in fs]\n"
    "print(json.dumps([[os.path.relpath(p,root),os.path.getsize(p)] for p in walk if os.path.isfile(p)]))\n"
)
_READ = (
    "import hashlib,sys\n"
    "digest,out=hashlib.sha256(),sys.stdout.buffer\n"
    "with open(sys.argv[1],'rb') as file:\n"
    "    while data:=file.read(65536):\n"
    "        digest.update(data)\n"
    "        out.write(data)\n"
    "out.flush()\n"
    "sys.stderr.write(digest.hexdigest())\n"
)
_IDLE = f"import time; time.sleep({READER_SECONDS})"


@dataclass(frozen=True)
class RemoteFile:
    """A file in the job's folder."""

    name: str
    """Relative to the job's folder."""
    size: int


class Files:
    """The files of one job, read through one container."""

    def __init__(self, client: Client, job: Job, pod: str, container: str) -> None:
        self._client, self._job, self._pod, self._container = client, job, pod, container
        self._root = f"{PodPath.CHECKPOINTS}/{job.name}"

    def list(self) -> Found:
        """All files, by name. Raises NotFound if the job has no folder."""
        output = bytearray()
        failed = self._run([_LIST, self._root], output.extend)
        if failed:
            raise NotFound(f"DistillJob {self._job.name} has left no files: {failed}")
        found = [RemoteFile(str(name), int(size)) for name, size in json.loads(bytes(output))]
        return sorted((file for file in found if _inside(file.name)), key=lambda file: file.name)

    def fetch(self, name: str, target: Path, progress: Callable[[int], None] = lambda _: None) -> str:
        """Copy a file to `target`, which appears whole or not at all, and return its SHA-256.

        `progress` is called with numbers of bytes that have arrived. Raises ClientError if what arrived is not what was
        read there.
        """
        if not _inside(name):
            raise ClientError(f"{name} is not a path in the job's folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.part")
        digest = hashlib.sha256()
        try:
            with part.open("wb") as file:

                def take(data: bytes) -> None:
                    file.write(data)
                    digest.update(data)
                    progress(len(data))

                told = self._run([_READ, f"{self._root}/{name}"], take, keep_stderr=True)
            if told != digest.hexdigest():
                raise ClientError(f"{name} did not arrive whole", told if "Error" in told else "try again")
            os.replace(part, target)
        finally:
            part.unlink(missing_ok=True)
        return digest.hexdigest()

    def _run(self, arguments: Arguments, take: Callable[[bytes], object], *, keep_stderr: bool = False) -> str:
        """Run a Python program in the container; returns its error, or with `keep_stderr` all that it wrote there."""
        command = ["python", "-c", *arguments]
        socket = _exec(self._client, self._job.namespace, self._pod, self._container, command)
        errors, quiet_since = b"", time.monotonic()
        try:
            while True:
                open_before = socket.is_open()
                data = socket.read_channel(1, timeout=1)
                if data:
                    take(data)
                    quiet_since = time.monotonic()
                errors += socket.read_channel(2)
                if not open_before:
                    break
                if time.monotonic() - quiet_since > SILENT_SECONDS:
                    raise TimedOut(f"pod {self._pod} sent nothing for {SILENT_SECONDS:.0f} s", "try again")
            code = socket.returncode
        finally:
            socket.close()
        text = errors.decode(errors="replace").strip()
        return text if keep_stderr or code else ""


Found = list[RemoteFile]
Arguments = list[str]


def _inside(name: str) -> bool:
    pure = PurePosixPath(name)
    return bool(name) and not pure.is_absolute() and ".." not in pure.parts


def _exec(client: Client, namespace: str, pod: str, container: str, command: list[str]) -> Any:
    """A web socket with the output of a command. v4 of the protocol is what every API server has."""
    from kubernetes.client.exceptions import ApiException
    from kubernetes.stream import ws_client

    api = client.connection.api
    wanted = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", c) for c in command)]
    where = f"{path('Pod', namespace, pod, 'exec')}?{urlencode(wanted)}"
    _, url, headers, *_ = api.param_serialize("GET", where, header_params={}, auth_settings=["BearerToken"])
    headers["sec-websocket-protocol"] = ws_client.V4_CHANNEL_PROTOCOL
    connect: Any = ws_client.websocket_call
    try:
        return connect(
            api.configuration, "GET", url, headers=headers, _preload_content=False, capture_all=False, binary=True
        )
    except ApiException as error:
        text = " ".join(str(error.reason).split())[:300]
        if "403" in text:
            raise Forbidden(f"forbidden: you cannot exec in pod {pod}", "ask an admin for pods/exec") from None
        if "404" in text:
            raise NotFound(f"pod {pod} is gone") from None
        raise Unreachable(f"cannot read from pod {pod}: {text}", "try again") from None


@contextmanager
def files_of(client: Client, job: Job, *, image: str | None = None, timeout: float = START_SECONDS) -> Iterator[Files]:
    """The job's files. Makes a reader pod, with the claim mounted read-only, if no rank 0 runs, and deletes it.

    `image`: of the reader pod; default: the job's, or the operator's trainer image. Raises ClientError.
    """
    running = next((pod for pod in client.pods(job.name) if node_rank(pod) == 0 and _runs(pod)), None)
    if running is not None:
        yield Files(client, job, running["metadata"]["name"], TRAINER_CONTAINER)
        return
    pod = reader_pod(job, image or _image(client, job))
    name = pod["metadata"]["name"]
    client.connection.request("POST", path("Pod", job.namespace), body=pod)
    try:
        _wait_for(client, job.namespace, name, timeout)
        yield Files(client, job, name, "reader")
    finally:
        with suppress(NotFound):
            client.connection.request("DELETE", path("Pod", job.namespace, name), body={"gracePeriodSeconds": 0})


def reader_pod(job: Job, image: str) -> Object:
    """A pod that does nothing and has the checkpoints claim read-only. It has none of a training pod's labels."""
    volume = job.spec.volumes.checkpoints
    mount = {"name": "checkpoints", "mountPath": PodPath.CHECKPOINTS, "readOnly": True}
    claim = {"claimName": volume.claim_name or f"{job.name}-checkpoints", "readOnly": True}
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
                    "command": ["python", "-c", _IDLE],
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


def _runs(pod: Object) -> bool:
    status = pod.get("status") or {}
    return status.get("phase") == "Running" and not pod["metadata"].get("deletionTimestamp")


def _image(client: Client, job: Job) -> str:
    if job.spec.image:
        return job.spec.image
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
        if _runs(pod):
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
