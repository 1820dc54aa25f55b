"""Kubelets whose containers are processes of this machine: each pod is a trainer with the address of its own."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from distill_api.constants import Env, Label
from distill_api.pod.report import TerminationMessage
from distill_local.trainer_process import free_port
from tests.support.apiserver.api import Api, Object, Refused
from tests.support.apiserver.nodes import Kubelet

POLL_SECONDS = 0.5
DELETED_SOON = (404, 409)
"""Answers about a pod that is changed or gone meanwhile; the next look at it shows which."""


@dataclass
class Container:
    """The process of a pod."""

    process: subprocess.Popen[bytes]
    termination: Path
    stopping: bool = False
    reported: bool = False


class ProcessKubelet:
    """Starts, stops and reports the trainers of a namespace's pods while the block runs.

    `volumes`: the folders of checkpoints, data and models. `folder`: for logs and termination messages.
    """

    def __init__(self, api: Api, namespace: str, volumes: Mapping[str, Path], folder: Path) -> None:
        self._api, self._namespace, self._volumes, self._folder = api, namespace, volumes, folder
        self._kubelet = Kubelet(api, namespace)
        self._containers: dict[str, Container] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kubelet", daemon=True)
        folder.mkdir(parents=True, exist_ok=True)

    def kill(self, pod: Object) -> None:
        """End the pod's processes without a word, as the kernel does when memory is short."""
        os.killpg(self._containers[pod["metadata"]["uid"]].process.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        for container in self._containers.values():
            if container.process.poll() is None:
                os.killpg(container.process.pid, signal.SIGKILL)
                container.process.wait()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            for pod in self._api.list("Pod", self._namespace):
                try:
                    self._look_after(pod)
                except Refused as refused:
                    if refused.code not in DELETED_SOON:
                        raise

    def _look_after(self, pod: Object) -> None:
        metadata = pod["metadata"]
        container = self._containers.get(metadata["uid"])
        deleted = "deletionTimestamp" in metadata
        if container is None:
            if pod["spec"].get("nodeName") and not deleted:
                self._start(pod)
            elif deleted:
                self._kubelet.remove(pod)
            return
        if deleted and not container.stopping and container.process.poll() is None:
            container.process.send_signal(signal.SIGTERM)
            container.stopping = True
        code = container.process.poll()
        if code is not None and not container.reported:
            self._kubelet.end(pod, 128 - code if code < 0 else code, _message(container.termination))
            container.reported = True
        if deleted and container.reported:
            self._kubelet.remove(pod)

    def _start(self, pod: Object) -> None:
        name, number = pod["metadata"]["name"], len(self._containers) + 1
        address, termination = f"127.77.{os.getpid() % 250}.{number}", self._folder / f"{name}.json"
        run = json.loads(_environment(pod)[Env.RUN]) | {
            "rendezvous": f"{address}:{free_port()}",
            "directories": {key: str(path) for key, path in self._volumes.items()} | {"termination": str(termination)},
        }
        labels = pod["metadata"]["labels"]
        environment = {
            **os.environ,
            Env.RUN: json.dumps(run),
            Env.ATTEMPT: labels[Label.ATTEMPT],
            Env.COMMITTED_STEP: labels[Label.COMMITTED_STEP],
            Env.NODE_RANK: "0",
            Env.PARENT: str(os.getpid()),
        }
        with (self._folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "distill_trainer"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._containers[pod["metadata"]["uid"]] = Container(process, termination)
        self._kubelet.run(pod, address)


def _environment(pod: Object) -> dict[str, Any]:
    (container,) = pod["spec"]["containers"]
    return {variable["name"]: variable.get("value", "") for variable in container["env"]}


def _message(path: Path) -> TerminationMessage | None:
    return TerminationMessage.model_validate_json(path.read_text()) if path.exists() else None
