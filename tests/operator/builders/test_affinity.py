"""Where the pods of a job are placed: apart from each other, near each other if asked for, and as the template adds."""

from typing import Any

from distill_operator import builders
from tests.support.operator.samples import SETTINGS, job, observed

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE, RACK = "topology.kubernetes.io/zone", "example.com/rack"
OF_ATTEMPT = {"batch.kubernetes.io/job-name": "tiny-a3"}
OF_JOB = {"distilljob.dev/job": "tiny"}


def term(labels: dict[str, str], topology: str) -> dict[str, Any]:
    return {"labelSelector": {"matchLabels": labels}, "topologyKey": topology}


def of_gang(nodes: int = 2, **spec: Any) -> dict[str, Any]:
    pod = builders.build_job(job(nodes=nodes, **spec), "team", 3, nodes, SETTINGS)["spec"]["template"]["spec"]
    return dict(pod.get("affinity", {}))


def of_placeholders(**spec: Any) -> dict[str, Any]:
    made = builders.build_placeholders(observed(job(elastic={"minNodes": 1}, **spec)), 1, SETTINGS)
    return dict(made["spec"]["template"]["spec"]["affinity"])


def test_by_default_pods_only_keep_apart() -> None:
    assert of_gang() == {"podAntiAffinity": {REQUIRED: [term(OF_ATTEMPT, "kubernetes.io/hostname")]}}


def test_pods_may_have_to_share_a_zone_and_prefer_to_share_a_rack() -> None:
    made = of_gang(scheduling={"requiredTopology": ZONE, "preferredTopology": RACK})
    assert made["podAffinity"] == {
        REQUIRED: [term(OF_ATTEMPT, ZONE)],
        PREFERRED: [{"weight": 100, "podAffinityTerm": term(OF_ATTEMPT, RACK)}],
    }
    assert made["podAntiAffinity"] == of_gang()["podAntiAffinity"]


def test_each_of_the_two_can_be_alone() -> None:
    assert of_gang(scheduling={"requiredTopology": ZONE})["podAffinity"].keys() == {REQUIRED}
    assert of_gang(scheduling={"preferredTopology": ZONE})["podAffinity"].keys() == {PREFERRED}


def test_one_pod_alone_has_nobody_to_be_near() -> None:
    assert of_gang(nodes=1, scheduling={"requiredTopology": ZONE}) == {}


def test_placeholders_reserve_nodes_near_the_gang() -> None:
    made = of_placeholders(scheduling={"requiredTopology": ZONE})
    assert made == {
        "podAffinity": {REQUIRED: [term(OF_JOB, ZONE)]},
        "podAntiAffinity": {REQUIRED: [term(OF_JOB, "kubernetes.io/hostname")]},
    }


def test_the_users_affinity_is_added() -> None:
    away, near = term({"app": "noisy"}, "kubernetes.io/hostname"), term({"app": "cache"}, ZONE)
    nodes = {REQUIRED: {"nodeSelectorTerms": [{"matchFields": []}]}}
    users = {"nodeAffinity": nodes, "podAffinity": {REQUIRED: [near]}, "podAntiAffinity": {REQUIRED: [away]}}
    spec = {"scheduling": {"requiredTopology": ZONE}, "template": {"spec": {"affinity": users}}}
    for made, labels in ((of_gang(**spec), OF_ATTEMPT), (of_placeholders(**spec), OF_JOB)):
        assert made == {
            "nodeAffinity": nodes,
            "podAffinity": {REQUIRED: [term(labels, ZONE), near]},
            "podAntiAffinity": {REQUIRED: [term(labels, "kubernetes.io/hostname"), away]},
        }


def test_the_trainer_need_not_know_where_it_runs() -> None:
    made = builders.build_job(job(scheduling={"requiredTopology": ZONE}), "team", 3, 2, SETTINGS)
    assert "scheduling" not in made["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"]
