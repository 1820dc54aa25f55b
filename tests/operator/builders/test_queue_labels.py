"""The queue that a DistillJob names holds what is to get nodes: the Jobs of its attempts and of its placeholders."""

from typing import Any

import pytest
import yaml

from distill_api.job import DistillJob, InvalidJob, parse_job
from distill_api.reading.quantity import amount
from distill_operator.builders import build_job, build_placeholders, build_service
from tests.support.machine.python import ROOT
from tests.support.operator.samples import SETTINGS, job, observed

QUEUE, PRIORITY = "kueue.x-k8s.io/queue-name", "kueue.x-k8s.io/priority-class"
QUEUED = {QUEUE: "gpus", PRIORITY: "research"}


def queued(labels: dict[str, str] | None = None, **spec: Any) -> DistillJob:
    document = job(**spec).to_wire()
    document["metadata"]["labels"] = {**QUEUED, "team": "vision"} if labels is None else labels
    return DistillJob.model_validate(document)


def of_kueue(manifest: dict[str, Any]) -> dict[str, str]:
    return {name: value for name, value in manifest["metadata"]["labels"].items() if "kueue" in name}


def test_the_job_of_an_attempt_is_in_the_queue_of_the_distilljob() -> None:
    made, plain = (build_job(of, "team", 3, 2, SETTINGS) for of in (queued(), job()))
    assert made["metadata"]["labels"] == {**plain["metadata"]["labels"], **QUEUED}
    assert made["spec"] == plain["spec"], "pods are not queued one by one, and Kueue's webhook suspends the Job"


def test_each_label_of_a_queue_is_taken_over_for_itself() -> None:
    made = build_job(queued({QUEUE: "gpus"}), "team", 1, 2, SETTINGS)
    assert of_kueue(made) == {QUEUE: "gpus"}


def test_placeholders_wait_in_the_queue_with_a_priority_of_their_own() -> None:
    settings = {"elastic": {"minNodes": 1}}
    made, plain = (build_placeholders(observed(of), 1, SETTINGS) for of in (queued(**settings), job(**settings)))
    assert of_kueue(made) == {QUEUE: "gpus"}
    assert made["spec"] == plain["spec"]


def test_the_tutorials_quota_admits_the_example() -> None:
    """Kueue never admits a Job that requests a resource without quota."""
    block = (ROOT / "docs/tutorials/queue.md").read_text().split("```yaml")[1].partition("```")[0]
    (group,) = next(found for found in yaml.safe_load_all(block) if found["kind"] == "ClusterQueue")["spec"][
        "resourceGroups"
    ]
    (flavor,) = group["flavors"]
    quota = {resource["name"]: resource["nominalQuota"] for resource in flavor["resources"]}
    of = parse_job(yaml.safe_load((ROOT / "examples/jobs/queued.yaml").read_text()))
    made = build_job(of, "team-a", 1, of.spec.nodes, SETTINGS)
    assert of_kueue(made).keys() == {QUEUE, PRIORITY}
    (trainer,) = made["spec"]["template"]["spec"]["containers"]
    wanted = {**trainer["resources"]["requests"], **trainer["resources"]["limits"]}
    assert wanted.keys() == quota.keys() == set(group["coveredResources"])
    for name, each in wanted.items():
        assert of.spec.nodes * amount(str(each)) <= amount(str(quota[name])), name


def test_nothing_else_has_labels_of_the_queue() -> None:
    assert of_kueue(build_service(queued(), "team", 1)) == {}


def test_the_users_labels_cannot_replace_the_operators() -> None:
    labels = {**QUEUED, "distilljob.dev/attempt": "9"}
    assert build_job(queued(labels), "team", 3, 2, SETTINGS)["metadata"]["labels"]["distilljob.dev/attempt"] == "3"


@pytest.mark.parametrize("labels", [None, {}, {"team": "vision"}])
def test_a_job_without_a_queue_has_none(labels: dict[str, str] | None) -> None:
    document = {**job().to_wire(), "metadata": {"name": "tiny", "labels": labels}}
    assert of_kueue(build_job(parse_job(document), "team", 1, 2, SETTINGS)) == {}


def test_a_label_that_is_no_text_is_refused() -> None:
    """As the API server does, before a job waits in no queue."""
    with pytest.raises(InvalidJob, match=r"metadata\.labels"):
        parse_job({**job().to_wire(), "metadata": {"name": "tiny", "labels": {QUEUE: 7}}})
