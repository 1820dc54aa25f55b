"""Reads files of a job from its checkpoints claim: in rank 0's pod while it runs, else in a short-lived reader pod."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from distill_api.constants import TRAINER_CONTAINER
from distill_api.constants import Path as PodPath
from distill_client.client import Client
from distill_client.errors import ClientError, NotFound, TimedOut
from distill_client.job import Job
from distill_client.pods.reader import START_SECONDS, reader, running_rank_0
from distill_client.pods.websocket import exec_socket

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
        command = ["python3", "-c", *arguments]
        connection, namespace = self._client.connection, self._job.namespace
        socket = exec_socket(connection, namespace, self._pod, self._container, command)
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


@contextmanager
def files_of(client: Client, job: Job, *, image: str | None = None, timeout: float = START_SECONDS) -> Iterator[Files]:
    """The job's files. Makes a reader pod, with the claim mounted read-only, if no rank 0 runs, and deletes it.

    `image`: of the reader pod; default: the job's, or the operator's trainer image. Raises ClientError.
    """
    running = running_rank_0(client, job)
    if running is not None:
        yield Files(client, job, running, TRAINER_CONTAINER)
        return
    with reader(client, job, image=image, timeout=timeout) as pod:
        yield Files(client, job, pod, "reader")
