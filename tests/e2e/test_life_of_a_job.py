"""From `kubectl apply` to a student that anyone can load, on a real cluster."""

import csv
import hashlib
import json
from typing import Any

import pytest

from digits.demo import stage, table
from testcluster import Cluster
from tests.e2e.jobs import NAMESPACE, Jobs, attempts, conditions, phase
from tests.support.cli.opened import opened


def test_the_operator_passes_its_own_helm_test(jobs: Jobs) -> None:
    jobs.cluster.helm("test", "distill-operator", "--namespace", stage.SYSTEM_NAMESPACE, "--timeout", "90s")


def test_apply_ends_in_a_distilled_student(jobs: Jobs) -> None:
    jobs.create("whole", jobs.spec(epochs=2, val=True))
    running = jobs.wait("whole", lambda job: phase(job) == "Running", seconds=120, what="Running")
    assert conditions(running)["Running"]["status"] == "True"
    assert running["status"]["nodes"] == "2/2"
    job = jobs.complete("whole")

    status = job["status"]
    assert conditions(job)["Complete"]["status"] == "True"
    assert status["observedGeneration"] == job["metadata"]["generation"]
    assert (status["failures"], status["preemptions"], len(attempts(job))) == (0, 0, 1)
    assert attempts(job)[0]["outcome"] == "Succeeded"
    assert status["progress"]["step"] == status["progress"]["steps"] == status["progress"]["committedStep"] == 32
    assert status["progress"]["distillationLoss"] > 0
    assert status["result"]["teacherMap"] is not None

    weights = jobs.volumes / "runs" / status["result"]["checkpoint"]
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == status["result"]["sha256"]
    with (jobs.volumes / "runs" / "whole" / "results.csv").open(newline="") as file:
        losses = [float(row["train/dis_loss"]) for row in csv.DictReader(file)]
    assert len(losses) == 2
    assert min(losses) > 0
    measured = table.validate(weights, jobs.volumes / "data" / "digits.yaml", 64, jobs.volumes / "val")
    assert abs(measured - status["result"]["studentMap"]) < 1e-3

    printed = jobs.kubectl("get", "dj", "whole")
    for word in ("PHASE", "EPOCH", "MAP", "RESTARTS", "Succeeded", "0/0"):
        assert word in printed
    assert not [pod for pod in jobs.pods("whole") if pod["status"]["phase"] in ("Pending", "Running")]
    jobs.kubectl("wait", "--for=condition=Complete", "dj/whole", "--timeout=1s")
    look_at_the_report(jobs, "whole")


def look_at_the_report(jobs: Jobs, name: str) -> None:
    """`distill open` of a job whose pods have ended: from a reader pod, through the kubelet's port-forward."""
    reader = ("get", "pods", "-l", "app.kubernetes.io/component=reader", "-o", "name")
    with opened(jobs.cluster.kubeconfig, NAMESPACE, name) as shown:
        assert shown.get() == (jobs.volumes / "runs" / name / "report.html").read_bytes()
        assert b"epoch" in shown.get("results.csv")
        assert len(jobs.kubectl(*reader).split()) == 1
        assert shown.interrupt() == 0
    assert jobs.kubectl(*reader).split() == []


def test_training_pods_hold_no_token_and_run_restricted(jobs: Jobs) -> None:
    jobs.create("restricted", jobs.spec(epochs=1))
    nodes = set(jobs.cluster.node_names)
    jobs.wait("restricted", lambda _: nodes_of(jobs.pods("restricted")) == nodes, seconds=60, what="a pod on each node")
    for pod in jobs.pods("restricted"):
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert "kube-api-access" not in json.dumps(pod["spec"]["volumes"])
        (trainer,) = pod["spec"]["containers"]
        assert trainer["securityContext"]["readOnlyRootFilesystem"] is True
    jobs.complete("restricted")


def nodes_of(pods: list[Any]) -> set[str | None]:
    return {pod["spec"].get("nodeName") for pod in pods}


@pytest.fixture
def node_with_trainer_image(cluster: Cluster) -> str:
    """A node that holds the trainer image; building and loading it takes minutes the first time."""
    node = cluster.node_names[0]
    cluster.load_image(stage.TRAINER_IMAGE, nodes=[node])
    return node


def test_the_image_of_the_dockerfile_trains(jobs: Jobs, node_with_trainer_image: str) -> None:
    node = node_with_trainer_image
    spec = jobs.spec(epochs=1)
    spec |= {
        "nodes": 1,
        "accelerators": {"perNode": 0, "processesPerNode": 2},
        "scheduling": {"nodeSelector": {"kubernetes.io/hostname": node}},
    }
    jobs.create("image", spec, workspace=False)
    job = jobs.complete("image")
    (pod,) = jobs.pods("image")
    assert pod["spec"]["containers"][0]["image"] == stage.TRAINER_IMAGE
    assert job["status"]["progress"]["step"] == 16


def test_deleting_a_job_in_mid_training_leaves_nothing_behind(jobs: Jobs) -> None:
    jobs.create("deleted", jobs.spec(epochs=50))
    jobs.in_mid_training("deleted", steps=5)
    jobs.kubectl("delete", "dj", "deleted", "--timeout=60s")
    jobs.kubectl("wait", "pods", "-l", "distilljob.dev/job=deleted", "--for=delete", "--timeout=60s")
    left = jobs.kubectl(
        "get", "jobs,pods,services,configmaps,secrets,networkpolicies", "-o", "name", "-l", "distilljob.dev/job=deleted"
    )
    assert left.split() == []
    assert not [line for line in jobs.kubectl("get", "svc", "-o", "name").split() if "deleted" in line], NAMESPACE
