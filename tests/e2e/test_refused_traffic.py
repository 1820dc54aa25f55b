"""The NetworkPolicies of chart and operator, enforced: who reaches a training pod, and what it reaches."""

from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest

from digits.demo import stage
from distill_api.constants import METRICS_PORT, OPERATOR_METRICS_PORT, RENDEZVOUS_PORT
from testcluster import Cluster
from testcluster.nodes.enforcing import enforced
from tests.e2e.jobs import NAMESPACE, Jobs

OPEN_PORT = 8000
"""Where strangers listen."""
CONNECT = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
    print("reached")
except OSError as error:
    print(error)
"""
LABELS = {"stranger": {"app": "stranger"}, "scraper": {"app.kubernetes.io/name": "prometheus"}}


@pytest.fixture
def strangers(jobs: Jobs) -> Iterator[dict[str, str]]:
    """Addresses of pods beside the job: one of no meaning, and one with Prometheus' label. Policies are enforced.

    A cluster of DISTILL_KUBECONFIG needs a network plugin that enforces them.
    """
    with enforced(jobs.cluster) if isinstance(jobs.cluster, Cluster) else nullcontext():
        stage.apply(jobs.cluster, *(listening(name) for name in LABELS))
        try:
            jobs.kubectl("wait", "pod", *LABELS, "--for=condition=Ready", "--timeout=90s")
            yield {name: address(jobs, NAMESPACE, f"pod/{name}") for name in LABELS}
        finally:
            jobs.kubectl("delete", "pod", *LABELS, "--ignore-not-found", "--now")


def listening(name: str) -> dict[str, Any]:
    container = {
        "name": "main",
        "image": stage.BASE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["python3", "-m", "http.server", str(OPEN_PORT)],
        "workingDir": "/tmp",
        "readinessProbe": {"tcpSocket": {"port": OPEN_PORT}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    nobody = {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"containers": [container], "securityContext": nobody, "terminationGracePeriodSeconds": 1}
    metadata = {"name": name, "namespace": NAMESPACE, "labels": LABELS[name]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def address(jobs: Jobs, namespace: str, *pod: str) -> str:
    path = "{.status.podIP}" if len(pod) == 1 else "{.items[0].status.podIP}"
    return jobs.cluster.kubectl("-n", namespace, "get", *pod, "-o", f"jsonpath={path}")


def reaches(jobs: Jobs, pod: str, target: str, port: int) -> bool:
    return jobs.kubectl("exec", pod, "--", "python3", "-c", CONNECT, target, str(port)).strip() == "reached"


def test_strangers_reach_no_training_pod_and_it_reaches_none(jobs: Jobs, strangers: dict[str, str]) -> None:
    jobs.create("walled", jobs.spec(epochs=200))
    jobs.in_mid_training("walled")  # the gang has met, and the operator reads its progress
    rank0 = jobs.pods("walled")[0]
    name, rank0_address = rank0["metadata"]["name"], rank0["status"]["podIP"]
    operator = address(jobs, stage.SYSTEM_NAMESPACE, "pods", "-l", "app.kubernetes.io/component=operator")
    connections = {
        ("stranger", rank0_address, METRICS_PORT): False,
        ("stranger", rank0_address, RENDEZVOUS_PORT): False,
        ("scraper", rank0_address, METRICS_PORT): True,
        ("scraper", rank0_address, RENDEZVOUS_PORT): False,
        ("stranger", operator, OPERATOR_METRICS_PORT): False,
        ("scraper", operator, OPERATOR_METRICS_PORT): True,
        ("stranger", strangers["scraper"], OPEN_PORT): True,
        (name, strangers["scraper"], OPEN_PORT): False,
    }
    assert {connection: reaches(jobs, *connection) for connection in connections} == connections
