"""What is done to a running job, and what its status has to say of it afterwards."""

from __future__ import annotations

import json
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from benchmarks.chaos.cluster.watching import Pod, Seen
from digits.demo import stage, story
from distill_api.constants import Component, Label
from distill_api.reasons import Reason
from testcluster import Cluster

NAMESPACE = "distill-chaos"
GPUS = 2
KUBELET_DOWN_SECONDS = (2.0, 8.0)
KUBELET_START_SECONDS = 180.0
"""Longer than a kubelet takes on a busy machine."""
OPERATOR = f"{Label.COMPONENT}={Component.OPERATOR}"


@dataclass
class Scene:
    """Where a disruption happens, and what chance has decided there."""

    cluster: Cluster
    seen: Seen
    attempt: int
    draw: random.Random
    notes: list[str] = field(default_factory=list)
    excused: set[Reason] = field(default_factory=set)
    """Further causes that the status may name, because the operator was away when it happened."""

    def victim(self) -> Pod:
        """One of the gang's pods. Raises RuntimeError when none lives."""
        living = [pod for pod in self.seen.gang(self.attempt) if pod.ended is None]
        if not living:
            raise RuntimeError(f"attempt {self.attempt} has no pod to disrupt: it has ended by itself")
        pod = self.draw.choice(living)
        self.notes.append(f"node rank {pod.rank} on {pod.node}")
        return pod

    def hits_the_operator(self, node: str) -> bool:
        """Whether the operator's pod is on the node as well."""
        pod = operator_pod(self.cluster)
        hit = pod is not None and pod["spec"].get("nodeName") == node
        if hit:
            self.notes.append("the operator as well")
        return hit

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """kubectl in the job's namespace."""
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, **options)


def operator_pod(cluster: Cluster) -> dict[str, Any] | None:
    """The operator's pod; None while there is none that is to live on."""
    found = json.loads(cluster.kubectl("get", "pods", "-n", stage.SYSTEM_NAMESPACE, "-l", OPERATOR, "-o", "json"))
    over = ("Succeeded", "Failed")
    living = [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]
    living = [pod for pod in living if pod.get("status", {}).get("phase") not in over]
    return living[0] if living else None


def serving_operator(cluster: Cluster) -> str | None:
    """The container of the operator that is ready; None while there is none, or while the API server does not answer.

    Of one that has just been killed its pod says for a while that it is ready: the next one is another container.
    """
    try:
        status = (operator_pod(cluster) or {}).get("status", {})
    except RuntimeError:
        return None
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    running = [one["containerID"] for one in status.get("containerStatuses", []) if "running" in one["state"]]
    return running[0] if ready and running else None


def preempt(scene: Scene) -> None:
    """A pod of higher priority takes all GPUs of a node, and leaves at once: capacity is at hand again."""
    pod = scene.victim()
    scene.kubectl("delete", "pod", story.PREEMPTOR, "--ignore-not-found", "--now")
    stage.apply(scene.cluster, *story.preemptor(pod.node, GPUS, namespace=NAMESPACE, seconds=0))


def evict(scene: Scene) -> None:
    """By the eviction API of policy/v1."""
    metadata = {"name": scene.victim().name, "namespace": NAMESPACE}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{metadata['name']}/eviction"
    scene.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def drain(scene: Scene) -> None:
    """Cordon a node, evict all that runs there, and give it back once it is empty."""
    node = scene.victim().node
    if scene.hits_the_operator(node):
        scene.excused.add(Reason.DISRUPTED)
    try:
        scene.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
    finally:
        scene.kubectl("uncordon", node)


def delete(scene: Scene) -> None:
    """As somebody with kubectl does."""
    scene.kubectl("delete", "pod", scene.victim().name, "--wait=false")


def kill_a_rank(scene: Scene) -> None:
    """SIGKILL of one training process, as by the kernel."""
    pod = scene.victim()
    ranks = (process for process in scene.cluster.pod_processes(pod.node, pod.uid) if process.name.startswith("rank "))
    if not any(process.signal(signal.SIGKILL) for process in ranks):  # the first one that is there
        raise RuntimeError(f"{pod.name} has no rank to kill")


def kill_the_pod(scene: Scene) -> None:
    """SIGKILL of everything in a pod, the sandbox as well."""
    pod = scene.victim()
    if not scene.cluster.kill_pods(pod.node, pod.uid):
        raise RuntimeError(f"{pod.name} has no process to kill")


def stop_the_kubelet(scene: Scene) -> None:
    """The kubelet ends, and all that ran in the node's pods; it is back some seconds later."""
    node = scene.victim().node
    if scene.hits_the_operator(node):  # a pod that is gone before it is back leaves what its peers have felt
        scene.excused.add(Reason.PEER_LOST)
    down = round(scene.draw.uniform(*KUBELET_DOWN_SECONDS), 1)
    scene.notes.append(f"down for {down} s")
    scene.cluster.stop_kubelet(node)
    try:
        if not scene.cluster.kill_pods(node):
            raise RuntimeError(f"no pod of {node} has a process to kill")
        time.sleep(down)
    finally:
        scene.cluster.start_kubelet(node, KUBELET_START_SECONDS)


def kill_the_operator(scene: Scene) -> None:
    """SIGKILL of its process, or deletion of its pod without a grace period.

    A pod whose container has been restarted is deleted: the kubelet would wait longer and longer with the next restart.
    """
    pod = operator_pod(scene.cluster)
    if pod is None:
        raise RuntimeError("the operator has no pod to kill")
    name, uid, node = pod["metadata"]["name"], pod["metadata"]["uid"], pod["spec"]["nodeName"]
    restarts = sum(one["restartCount"] for one in pod["status"].get("containerStatuses", []))
    if scene.draw.random() < 0.5 or restarts:
        scene.notes.append("pod deleted")
        scene.cluster.kubectl("delete", "pod", "-n", stage.SYSTEM_NAMESPACE, name, "--now")
        return
    scene.notes.append("process killed")
    processes = [one for one in scene.cluster.pod_processes(node, uid) if "distill_operator" in " ".join(one.command)]
    if not sum(process.signal(signal.SIGKILL) for process in processes):
        raise RuntimeError(f"{name} has no operator to kill")


@dataclass(frozen=True)
class Kind:
    """A way to disturb a job."""

    name: str
    act: Callable[[Scene], None]
    causes: frozenset[Reason]
    """What the status may call the end of the attempt; empty where the attempt goes on."""
    charged: str = ""
    """The budget that the end is charged to: preemptions or failures."""
    grace: bool = False
    """Whether the pods are given a grace period: then nothing may be lost."""
    spare_steps: int = 6
    """That are made meanwhile: between the decision and the deed, and while the attempt goes on without an operator."""

    @property
    def ends(self) -> bool:
        """Whether the attempt ends by it."""
        return bool(self.causes)


def _kind(name: str, act: Callable[[Scene], None], *causes: Reason, **more: Any) -> Kind:
    return Kind(name, act, frozenset(causes), **more)


KINDS = {
    kind.name: kind
    for kind in (
        _kind("preemption", preempt, Reason.PREEMPTED, charged="preemptions", grace=True),
        _kind("eviction", evict, Reason.EVICTED, charged="preemptions", grace=True),
        _kind("drain", drain, Reason.EVICTED, charged="preemptions", grace=True),
        _kind("pod deletion", delete, Reason.POD_DELETED, charged="preemptions", grace=True),
        _kind("SIGKILL rank", kill_a_rank, Reason.PROCESS_KILLED, charged="failures"),
        _kind("SIGKILL pod", kill_the_pod, Reason.PROCESS_KILLED, charged="failures"),
        _kind("kubelet stop", stop_the_kubelet, Reason.PROCESS_KILLED, charged="failures"),
        _kind("operator kill", kill_the_operator, spare_steps=60),
    )
}


def schedule(count: int, draw: random.Random) -> list[Kind]:
    """`count` kinds in random order, each as often as any other to within one."""
    kinds = list(KINDS.values())
    whole, rest = divmod(count, len(kinds))
    drawn = kinds * whole + draw.sample(kinds, rest)
    draw.shuffle(drawn)
    return drawn
