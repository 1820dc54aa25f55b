"""Nodes that are lost in mid-training: no pod that cannot be ended holds the job, and what lives on there commits
nothing more."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from digits.demo import stage
from distill_api.constants import Component, JobFile, Label
from testcluster import Cluster
from testcluster.linux.processes import ProcessId
from tests.e2e.jobs import NAMESPACE, Jobs, attempts, progress

GRACE_SECONDS, LOST_SECONDS = 10, 2
UNREACHABLE = ("node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready")
IMPATIENT = {
    "tolerations": [
        {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 1} for key in UNREACHABLE
    ]
}


def endless(jobs: Jobs, **fields: Any) -> dict[str, Any]:
    """A job that trains for as long as a test takes, and soon believes that a node is lost."""
    recovery = {"gracePeriodSeconds": GRACE_SECONDS, "nodeLostTimeoutSeconds": LOST_SECONDS}
    return jobs.spec(epochs=1000) | {"recovery": recovery, "scheduling": IMPATIENT} | fields


@pytest.fixture
def spare(cluster: Cluster) -> str:
    """The node where the operator is."""
    operator = f"{Label.COMPONENT}={Component.OPERATOR}"
    pods = json.loads(cluster.kubectl("get", "pods", "-n", stage.SYSTEM_NAMESPACE, "-l", operator, "-o", "json"))
    (node,) = {pod["spec"]["nodeName"] for pod in pods["items"]}
    return str(node)


@pytest.fixture
def victim(cluster: Cluster, spare: str) -> Iterator[str]:
    """The other node, which is to be lost. It is whole again after the test, whatever has become of it."""
    (node,) = set(cluster.node_names) - {spare}
    yield node
    cluster.heal(node)
    cluster.start_kubelet(node)
    cluster.kubectl("wait", "node", node, "--for=condition=Ready", "--timeout=60s")
    deadline = time.monotonic() + 60
    while ghosts := set(cluster.pod_processes(node)) - set(known(cluster, node)):
        assert time.monotonic() < deadline, f"{node} is back, and these processes of its old pods live: {ghosts}"
        time.sleep(0.5)


def known(cluster: Cluster, node: str) -> Iterator[ProcessId]:
    """The processes of the pods that the API server knows to be on the node."""
    pods = json.loads(cluster.kubectl("get", "pods", "-A", "-o", "json", f"--field-selector=spec.nodeName={node}"))
    for pod in pods["items"]:
        yield from cluster.pod_processes(node, pod["metadata"]["uid"])


@contextmanager
def cordoned(cluster: Cluster, node: str) -> Iterator[None]:
    """No pod is placed on the node meanwhile."""
    cluster.kubectl("cordon", node)
    try:
        yield
    finally:
        cluster.kubectl("uncordon", node)


@dataclass(frozen=True)
class Ghost:
    """The pod of a job of one node, on a node that is lost while the pod lives."""

    job: str
    node: str
    pod: str
    uid: str


def haunt(jobs: Jobs, name: str, spare: str, victim: str) -> Ghost:
    """Start a job of one node on the node that is to be lost."""
    with cordoned(jobs.cluster, spare):
        jobs.create(name, endless(jobs, nodes=1))
        jobs.wait(name, lambda _: bool(placed(jobs, name)), seconds=30, what="a node")
    (pod,) = jobs.pods(name)
    assert placed(jobs, name) == [victim]
    return Ghost(name, victim, pod["metadata"]["name"], pod["metadata"]["uid"])


def placed(jobs: Jobs, name: str) -> list[str]:
    return [pod["spec"]["nodeName"] for pod in jobs.pods(name) if "nodeName" in pod["spec"]]


def goes_on_without(jobs: Jobs, ghost: Ghost, spare: str) -> None:
    """The job goes on at the node that is left, and the ghost, which trains on where it is, is refused its commit."""
    name = ghost.job
    job = jobs.wait(
        name,
        lambda job: job["status"]["attempt"] == 2 and attempts(job)[1].get("runningAt") is not None,
        seconds=120,
        what="steps of the next attempt",
    )
    first, second = attempts(job)
    assert (first["outcome"], first["reason"]) == ("Disrupted", "NodeLost")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (1, 0)
    assert second["resumedFromStep"] >= first["committedStep"] > 0
    assert placed(jobs, name) == [spare]

    fence = jobs.volumes / "runs" / name / JobFile.FENCE
    assert json.loads(fence.read_text())["attempt"] == 2
    deadline = time.monotonic() + 30
    while "Superseded" not in (log := jobs.cluster.pod_log(ghost.node, NAMESPACE, ghost.pod, ghost.uid, "trainer")):
        assert time.monotonic() < deadline, f"the old attempt goes on:\n{log[-2000:]}"
        time.sleep(0.5)
    raised = datetime.fromtimestamp(fence.stat().st_mtime + 1, UTC).isoformat()  # one that was in flight tells it late
    late = [line for line in log.splitlines() if "committed step" in line and line.split()[0] > raised]
    assert late == []
    jobs.wait(
        name,
        lambda job: progress(job)["committedStep"] > second["resumedFromStep"],
        seconds=60,
        what="a commit of the next attempt",
    )


def test_a_training_that_survives_on_a_cut_off_node_commits_nothing(jobs: Jobs, spare: str, victim: str) -> None:
    ghost = haunt(jobs, "haunted", spare, victim)
    jobs.in_mid_training("haunted", steps=5)
    jobs.cluster.partition(victim)
    goes_on_without(jobs, ghost, spare)


def test_a_node_with_a_dead_kubelet_that_is_deleted_holds_no_job(jobs: Jobs, spare: str, victim: str) -> None:
    """Neither the gang of which a pod has died unseen, nor the training that lives on."""
    ghost = haunt(jobs, "orphaned", spare, victim)
    jobs.create("bereaved", endless(jobs, elastic={"minNodes": 1, "shrinkAfterSeconds": 3}))
    for name in ("bereaved", "orphaned"):
        jobs.in_mid_training(name, steps=5)
    (dead,) = [pod["metadata"]["uid"] for pod in jobs.pods("bereaved") if pod["spec"]["nodeName"] == victim]
    jobs.cluster.stop_kubelet(victim)
    jobs.cluster.kill_pods(victim, dead)
    jobs.cluster.kubectl("delete", "node", victim)
    job = jobs.wait(
        "bereaved",
        lambda job: attempts(job)[-1]["nodes"] == 1 and attempts(job)[-1].get("runningAt") is not None,
        seconds=120,
        what="steps on one node",
    )
    first, *_, last = attempts(job)
    assert (first["nodes"], first["outcome"], first["reason"]) == (2, "Disrupted", "NodeLost")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (1, 0)
    assert last["resumedFromStep"] >= first["committedStep"] > 0
    assert placed(jobs, "bereaved") == [spare]
    goes_on_without(jobs, ghost, spare)
