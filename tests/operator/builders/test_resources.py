"""What a training pod requests by default, and what the user's template changes of it."""

from typing import Any

import pytest
import yaml

from distill_api.constants import Requests
from distill_api.job import DistillJob, parse_job
from distill_operator import builders
from distill_trainer.data.loading.workers import slots_per_worker
from tests.support.machine.python import ROOT
from tests.support.operator.samples import SETTINGS, job, observed

NODE_OF_THE_TEST_CLUSTER = 2000
"""Thousandths of a CPU: each node reports the one machine's two."""
OPERATOR = 100


def resources(of: DistillJob) -> dict[str, Any]:
    containers = builders.build_job(of, "team", 1, of.spec.nodes, SETTINGS)["spec"]["template"]["spec"]["containers"]
    return next(container["resources"] for container in containers if container["name"] == "trainer")


@pytest.mark.parametrize(
    ("processes", "workers", "cpu", "memory"),
    [(1, 0, "500m", "1024Mi"), (1, 2, "1000m", "1541Mi"), (8, 4, "12000m", "16400Mi"), (1, 64, "2500m", "3090Mi")],
)
def test_requests_follow_from_processes_and_workers(processes: int, workers: int, cpu: str, memory: str) -> None:
    training = {"batch": 64, "imgsz": 64, "workers": workers}
    made = resources(job(accelerators={"perNode": 0, "processesPerNode": processes}, training=training))
    assert made == {"requests": {"cpu": cpu, "memory": memory}}, "and no limit"


def test_requests_have_memory_for_the_batches_that_workers_load() -> None:
    def memory(**changes: Any) -> str:
        batch = {"batch": 64, "imgsz": 640, "workers": 8}
        made = resources(job(accelerators={"perNode": 2}, training=batch | changes.pop("training", {}), **changes))
        return str(made["requests"]["memory"])

    one = 16 * 3 * 640**2 / 2**20  # MiB of a rank's batch, on two nodes
    assert memory(training={"val": False}) == f"{2 * (3072 + 48 * one):.0f}Mi"
    assert memory() == f"{2 * (3072 + 48 * 3 * one):.0f}Mi", "a validation batch has twice as many"
    dataset = {"config": "d.yaml", "unlabelled": {"images": "more", "ratio": 2}}
    assert memory(dataset=dataset) == f"{2 * (3072 + 48 * 5 * one):.0f}Mi"
    assert slots_per_worker(workers=8, held=2) <= Requests.BATCHES_PER_WORKER


def with_resources(**given: Any) -> dict[str, Any]:
    return resources(job(template={"spec": {"containers": [{"name": "trainer", "resources": given}]}}))


def test_the_users_requests_and_limits_win() -> None:
    made = with_resources(requests={"cpu": "9"}, limits={"ephemeral-storage": "1Gi"})
    assert made["requests"] == {"cpu": "9", "memory": "4422Mi"}
    assert made["limits"] == {"nvidia.com/gpu": "1", "ephemeral-storage": "1Gi"}


def test_a_limit_below_the_default_request_is_not_refused() -> None:
    """Kubernetes requests what is limited and not requested, and refuses a request above its limit."""
    assert with_resources(limits={"cpu": "1"})["requests"] == {"memory": "4422Mi"}
    assert "requests" not in with_resources(limits={"cpu": "1", "memory": "1Gi"})


def test_a_limit_of_a_sidecar_is_not_the_trainers() -> None:
    logs = {"name": "logs", "image": "x", "resources": {"limits": {"cpu": "1"}}}
    assert "cpu" in resources(job(template={"spec": {"containers": [logs]}}))["requests"]


def test_resources_of_the_spec_replace_each_default_by_itself() -> None:
    given = {"requests": {"cpu": 12}, "limits": {"memory": "64Gi", "rdma/hca": "1"}}
    assert resources(job(resources=given)) == {
        "requests": {"cpu": "12"},
        "limits": {"memory": "64Gi", "rdma/hca": "1", "nvidia.com/gpu": "1"},
    }


def test_a_placeholder_requests_what_the_spec_gives() -> None:
    of = job(nodes=4, elastic={"minNodes": 1}, resources={"requests": {"cpu": "12"}})
    made = builders.build_placeholders(observed(of), 2, SETTINGS)["spec"]["template"]["spec"]["containers"]
    assert made[0]["resources"] == resources(of)
    assert made[0]["resources"]["requests"]["cpu"] == "12"


def test_claims_of_devices_may_stay_in_the_template() -> None:
    template = {"spec": {"containers": [{"name": "trainer", "resources": {"claims": [{"name": "gpu"}]}}]}}
    made = resources(job(resources={"requests": {"cpu": "12"}}, template=template))
    assert made["claims"] == [{"name": "gpu"}]
    assert made["requests"]["cpu"] == "12"


def test_the_trainer_need_not_know_the_resources() -> None:
    made = builders.build_job(job(resources={"requests": {"cpu": "12"}}), "team", 1, 2, SETTINGS)
    (container,) = made["spec"]["template"]["spec"]["containers"]
    assert "resources" not in container["env"][0]["value"], "an older trainer would refuse it"


@pytest.mark.parametrize("example", ["distilljob.yaml", "teacher.yaml"])
def test_two_pods_of_the_example_fit_a_node_of_the_test_cluster(example: str) -> None:
    of = parse_job(yaml.safe_load((ROOT / "examples/digits" / example).read_text()))
    cpu = int(resources(of)["requests"]["cpu"].removesuffix("m"))
    assert 2 * cpu + OPERATOR <= NODE_OF_THE_TEST_CLUSTER
