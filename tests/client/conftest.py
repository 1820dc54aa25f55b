"""`distill` and its client on a real API server: what it stores and refuses, whom it allows what.

The operator and two pretended nodes are those of tests/apiserver; what jobs of other tests say of themselves is what
the operator has written in such a case.
"""

import contextlib
import hashlib
import itertools
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from distill_cli.main import app
from distill_client import Client
from testcluster import ControlPlane
from tests.apiserver.conftest import _operator, api, make_team, nodes, operator, plane, team
from tests.support.apiserver.api import Api, Object, Refused, make_namespace, wait_for
from tests.support.apiserver.kubelet import KubeletServer, kubelet_server
from tests.support.apiserver.nodes import Kubelet, Nodes
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.apiserver.team import manifest

__all__ = ["_operator", "api", "make_team", "nodes", "operator", "plane", "team"]

WEIGHTS = bytes(range(256)) * 700
"""More than one frame of a web socket."""
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    output: str
    errors: str


@dataclass
class Desk:
    """A user's place: a kubeconfig, a namespace, and the command."""

    kubeconfig: Path
    namespace: str
    api: Api
    folder: Path

    def distill(self, command: str, *arguments: str, kubeconfig: Path | None = None, stdin: str = "") -> Ended:
        """Run `distill` as a script would: neither its input nor its output is a terminal."""
        options = ["-n", self.namespace, "--kubeconfig", str(kubeconfig or self.kubeconfig)]
        result = CliRunner().invoke(app, [command, *arguments, *options], input=stdin)
        assert not result.exception or isinstance(result.exception, SystemExit), result.exc_info
        return Ended(result.exit_code, result.stdout, result.stderr)

    def ok(self, command: str, *arguments: str) -> str:
        """The output of a command that must end with 0."""
        ended = self.distill(command, *arguments)
        assert ended.code == 0, ended
        return ended.output

    @property
    def client(self) -> Client:
        return Client(kubeconfig=self.kubeconfig, namespace=self.namespace)

    def file(self, name: str = "tiny", **spec: Any) -> str:
        """A DistillJob file."""
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(manifest(name, **spec)))
        return str(path)

    def tell(self, name: str, status: Object) -> None:
        """Write a status, as the operator does."""
        self.api.patch("DistillJob", self.namespace, name, {"status": status}, "status")


def pod(rank: int, attempt: int = 1, job: str = "tiny", node: str | None = None, gpus: int = 0) -> Object:
    """A training pod as the Job controller makes it, on a node."""
    labels = {
        "distilljob.dev/job": job,
        "distilljob.dev/attempt": str(attempt),
        "app.kubernetes.io/component": "trainer",
        "batch.kubernetes.io/job-completion-index": str(rank),
    }
    container: dict[str, Any] = {"name": "trainer", "image": "trainer:test"}
    if gpus:
        container["resources"] = {"limits": {"nvidia.com/gpu": gpus}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"{job}-a{attempt}-{rank}-x", "labels": labels},
        "spec": {"nodeName": node or f"node{rank}", "restartPolicy": "Never", "containers": [container]},
    }


def run_gang(desk: Desk, *pods: Object) -> None:
    kubelet = Kubelet(desk.api, desk.namespace)
    for made in pods:
        kubelet.run(desk.api.create(made, desk.namespace), "127.0.0.9")


def started(desk: Desk, **status: Any) -> None:
    """A job whose first attempt trains."""
    desk.ok("apply", desk.file())
    attempt = {"number": 1, "nodes": 2, "startedAt": "2026-11-23T12:00:00Z", "outcome": "Running"}
    training = {"type": "Running", "status": "True", "reason": "Training", "message": "attempt 1 is training"}
    told = {
        "phase": "Running",
        "observedGeneration": 1,
        "attempt": 1,
        "attempts": [attempt],
        "nodes": "2/2",
        "startedAt": "2026-11-23T12:00:00Z",
        "conditions": [training | {"lastTransitionTime": "2026-11-23T12:00:00Z"}],
        "progress": {"epoch": 2, "epochs": 4, "step": 100, "steps": 200, "committedStep": 90, "studentMap": 0.25},
    }
    desk.tell("tiny", told | status)


def write_results(kubelet: KubeletServer) -> None:
    folder = kubelet.volume / "tiny"
    for name, data in (
        ("weights/best.pt", WEIGHTS),
        ("results.csv", b"epoch\n1\n"),
        ("report.html", b"<html>"),
        ("checkpoints/step-3/tensors.bin", b"large"),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def allow(desk: Desk, user: str, *resources: str) -> None:
    """Let a user read these resources, and nothing else. Each user can be given rights once in a session."""
    group = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["", "distilljob.dev"], "resources": list(resources), "verbs": ["get", "list"]}]
    made = {"apiVersion": f"{group}/v1", "metadata": {"name": user}}
    subject = {"kind": "User", "apiGroup": group, "name": user}
    role = {"apiGroup": group, "kind": "ClusterRole", "name": user}
    desk.api.create({**made, "kind": "ClusterRole", "rules": rules})
    desk.api.create({**made, "kind": "ClusterRoleBinding", "roleRef": role, "subjects": [subject]})


def run_next_reader(api: Api, namespace: str) -> list[Object]:
    """Say as a kubelet that the next reader pod runs, once it is on a node; the list gets the pod."""
    seen: list[Object] = []

    def pending() -> Object | None:
        pods = api.list("Pod", namespace, labelSelector="app.kubernetes.io/component=reader")
        if pods and not pods[0]["spec"].get("nodeName"):
            name, target = pods[0]["metadata"]["name"], {"apiVersion": "v1", "kind": "Node", "name": "node0"}
            binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
            with contextlib.suppress(Refused):  # the scheduler was faster
                api.request("POST", api.path("Pod", namespace, name, "binding"), binding)
        return pods[0] if pods and pods[0]["spec"].get("nodeName") else None

    def run() -> None:
        pod = wait_for(pending, 60)
        Kubelet(api, namespace).run(pod, "127.0.0.9")
        seen.append(pod)

    threading.Thread(target=run, daemon=True).start()
    return seen


_numbers = itertools.count(1)


@pytest.fixture
def desk(plane: ControlPlane, api: Api, _operator: OperatorProcess, tmp_path: Path) -> Iterator[Desk]:
    """An administrator's, in a namespace of its own. No operator runs, so a status is what the test says."""
    _operator.kill()
    namespace = f"desk-{next(_numbers)}"
    make_namespace(api, namespace)
    yield Desk(plane.kubeconfig, namespace, api, tmp_path)
    for kind in ("DistillJob", "Pod"):  # pods hold the nodes' GPUs
        for obj in api.list(kind, namespace):
            api.delete(kind, namespace, obj["metadata"]["name"], gracePeriodSeconds=0)


@pytest.fixture
def kubelet(plane: ControlPlane, api: Api, nodes: Nodes, tmp_path: Path) -> Iterator[KubeletServer]:
    volume = tmp_path / "volume"
    volume.mkdir()
    with kubelet_server(plane, api, nodes.names, volume) as server:
        yield server


@pytest.fixture
def gang(desk: Desk, nodes: Nodes, kubelet: KubeletServer) -> KubeletServer:
    """Two pods that run, with logs in which the ranks take turns."""
    del nodes
    started(desk)
    run_gang(desk, pod(0), pod(1))
    times = [f"2026-11-23T12:00:0{second}.5Z" for second in range(8)]
    kubelet.logs["tiny-a1-0-x"] = [f"{times[0]} rank 0 starts", f"{times[4]} epoch 1/4  box 2  dis 6  1.5s"]
    kubelet.logs["tiny-a1-0-x"] += [f"{times[6]} epoch 2/4  box 1  dis 3  mAP50-95 0.2500  1.5s"]
    kubelet.logs["tiny-a1-1-x"] = [f"{times[2]} rank 2 starts", f"{times[5]} rank 2 goes on"]
    return kubelet


@pytest.fixture
def user(plane: ControlPlane) -> Callable[[str], Path]:
    """The kubeconfig of a user without any right."""
    return lambda name: plane.user_kubeconfig(name, name)
