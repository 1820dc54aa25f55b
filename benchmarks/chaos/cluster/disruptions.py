"""The kinds of disruptions, and the reasons that the job's status must show for them."""

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
"""Longer than a kubelet takes to start on a busy machine."""
OPERATOR = f"{Label.COMPONENT}={Component.OPERATOR}"


@dataclass
class Scene:
    """The target of a disruption, and random choices about it."""

    cluster: Cluster
    seen: Seen
    attempt: int
    draw: random.Random
    notes: list[str] = field(default_factory=list)
    excused: set[Reason] = field(default_factory=set)
    """Further reasons allowed in the status, because the operator was down meanwhile."""

    def victim(self) -> Pod:
        """A random running pod of the gang. Raises RuntimeError if there is none."""
        living = [pod for pod in self.seen.gang(self.attempt) if pod.ended is None]
        if not living:
            raise RuntimeError(f"attempt {self.attempt} has no pod to disrupt: it ended by itself")
        pod = self.draw.choice(living)
        self.notes.append(f"node rank {pod.rank} on {pod.node}")
        return pod

    def hits_the_operator(self, node: str) -> bool:
        """Whether the operator's pod is on the node too."""
        pod = operator_pod(self.cluster)
        hit = pod is not None and pod["spec"].get("nodeName") == node
        if hit:
            self.notes.append("the operator too")
        return hit

    def kubectl(self, *arguments: str, **options: Any) -> str:
        """Run kubectl in the job's namespace."""
        return self.cluster.kubectl("-n", NAMESPACE, *arguments, **options)


def operator_pod(cluster: Cluster) -> dict[str, Any] | None:
    """The operator's pod; None while there is none that is not ending."""
    found = json.loads(cluster.kubectl("get", "pods", "-n", stage.SYSTEM_NAMESPACE, "-l", OPERATOR, "-o", "json"))
    over = ("Succeeded", "Failed")
    living = [pod for pod in found["items"] if "deletionTimestamp" not in pod["metadata"]]
    living = [pod for pod in living if pod.get("status", {}).get("phase") not in over]
    return living[0] if living else None


def serving_operator(cluster: Cluster) -> str | None:
    """Container ID of the ready operator; None if there is none or the API server does not respond.

    The pod of a killed operator is still reported as ready for a while, so compare container IDs.
    """
    try:
        status = (operator_pod(cluster) or {}).get("status", {})
    except RuntimeError:
        return None
    ready = any(one["type"] == "Ready" and one["status"] == "True" for one in status.get("conditions", []))
    running = [one["containerID"] for one in status.get("containerStatuses", []) if "running" in one["state"]]
    return running[0] if ready and running else None


def preempt(scene: Scene) -> None:
    """A pod of higher priority preempts all GPUs of a node and ends at once, so that capacity is available again."""
    pod = scene.victim()
    scene.kubectl("delete", "pod", story.PREEMPTOR, "--ignore-not-found", "--now")
    stage.apply(scene.cluster, *story.preemptor(pod.node, GPUS, namespace=NAMESPACE, seconds=0))


def evict(scene: Scene) -> None:
    """Evict a pod with the Eviction API."""
    metadata = {"name": scene.victim().name, "namespace": NAMESPACE}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods/{metadata['name']}/eviction"
    scene.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(body))


def drain(scene: Scene) -> None:
    """Drain a node, and uncordon it when it is empty."""
    node = scene.victim().node
    if scene.hits_the_operator(node):
        scene.excused.add(Reason.DISRUPTED)
    try:
        scene.kubectl("drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=90s")
    finally:
        scene.kubectl("uncordon", node)


def delete(scene: Scene) -> None:
    """Delete a pod with kubectl."""
    scene.kubectl("delete", "pod", scene.victim().name, "--wait=false")


def kill_a_rank(scene: Scene) -> None:
    """Kill one rank's process with SIGKILL."""
    pod = scene.victim()
    ranks = (process for process in scene.cluster.pod_processes(pod.node, pod.uid) if process.name.startswith("rank "))
    if not any(process.signal(signal.SIGKILL) for process in ranks):  # stops at the first one that exists
        raise RuntimeError(f"{pod.name} has no rank to kill")


def kill_the_pod(scene: Scene) -> None:
    """Kill all processes of a pod with SIGKILL, including the sandbox."""
    pod = scene.victim()
    if not scene.cluster.kill_pods(pod.node, pod.uid):
        raise RuntimeError(f"{pod.name} has no process to kill")


def stop_the_kubelet(scene: Scene) -> None:
    """Stop a kubelet and kill all pods of its node; start the kubelet some seconds later."""
    node = scene.victim().node
    if scene.hits_the_operator(node):  # if the pod is gone before the operator is back, only its peers' error is left
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
    """Kill the operator's process with SIGKILL, or delete its pod without a grace period.

    A pod whose container was restarted before is deleted, because the kubelet's restart backoff grows.
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
    """A kind of disruption."""

    name: str
    act: Callable[[Scene], None]
    causes: frozenset[Reason]
    """Reasons allowed in the status for the end of the attempt; empty if the attempt must not end."""
    charged: str = ""
    """Budget to which the end is charged: preemptions or failures."""
    grace: bool = False
    """Whether the pods get a grace period, so that no step may be lost."""
    spare_steps: int = 6
    """Steps that the job makes meanwhile: before the disruption takes effect, and while the operator is down."""

    @property
    def ends(self) -> bool:
        """Whether it ends the attempt."""
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
    """`count` kinds in random order; the numbers of any two kinds differ by at most one."""
    kinds = list(KINDS.values())
    whole, rest = divmod(count, len(kinds))
    drawn = kinds * whole + draw.sample(kinds, rest)
    draw.shuffle(drawn)
    return drawn
