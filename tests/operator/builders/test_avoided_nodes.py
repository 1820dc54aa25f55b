"""Nodes that pods must not run on: one more condition in whatever node affinity the user has."""

from typing import Any

import pytest

from distill_api.constants import AVOIDED_NODES
from distill_api.reasons import Reason
from distill_api.status import AvoidedNode
from distill_operator.builders import build_job, build_placeholders
from distill_operator.builders.affinity import avoiding
from distill_operator.builders.pod import run_config
from distill_operator.kube.objects import job_facts
from distill_operator.policies.recovery import bad_nodes
from tests.support.operator.samples import SETTINGS, UID, at, job, observed, status

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ZONE = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}
SSD = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
BY_NAME = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node7"]}]}
NOT_1 = {"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}
NOT_2 = {"key": "metadata.name", "operator": "NotIn", "values": ["node2"]}


def terms(pod: dict[str, Any]) -> Any:
    return pod["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]


def required(*of: dict[str, Any]) -> dict[str, Any]:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(of)}}}}


@pytest.mark.parametrize(
    ("users", "merged"),
    [
        ({}, [{"matchFields": [NOT_1, NOT_2]}]),
        ({"affinity": None}, [{"matchFields": [NOT_1, NOT_2]}]),
        ({"affinity": {"nodeAffinity": {}}}, [{"matchFields": [NOT_1, NOT_2]}]),
        (required(ZONE), [{**ZONE, "matchFields": [NOT_1, NOT_2]}]),
        (required(ZONE, SSD), [{**ZONE, "matchFields": [NOT_1, NOT_2]}, {**SSD, "matchFields": [NOT_1, NOT_2]}]),
        (required(BY_NAME), [{"matchFields": [*BY_NAME["matchFields"], NOT_1, NOT_2]}]),
        # An empty term matches no node: with a condition it would match all others.
        (required({}, ZONE), [{}, {**ZONE, "matchFields": [NOT_1, NOT_2]}]),
        (required({"matchExpressions": []}), [{"matchExpressions": []}]),
        # The API server refuses this, and says so to the user.
        (required(), []),
    ],
)
def test_every_alternative_of_the_users_affinity_gets_the_condition(users: dict[str, Any], merged: Any) -> None:
    assert terms(avoiding(users, ("node1", "node2"))) == merged


def test_a_node_that_may_not_be_to_blame_is_only_not_preferred() -> None:
    nodes = [
        AvoidedNode(node=node, reason=reason, attempt=1, until=at(9))
        for node, reason in (("node1", Reason.ACCELERATOR_FAILED), ("node2", Reason.PROCESS_KILLED))
    ]
    stored = status(avoided_nodes=nodes)
    assert bad_nodes.names(stored) == ("node1",)
    users = {"affinity": {"nodeAffinity": {PREFERRED: [{"weight": 1, "preference": ZONE}]}}}
    of = job(stored, nodes=2, elastic={"minNodes": 1}, template={"spec": users})
    made = build_job(of, "team", 2, 2, SETTINGS, ("node1",))
    holders = build_placeholders(observed(of), 1, SETTINGS, ("node1",))
    for manifest in (made, holders):
        pod = manifest["spec"]["template"]["spec"]
        assert terms(pod) == [{"matchFields": [NOT_1]}]
        other, less = pod["affinity"]["nodeAffinity"][PREFERRED]
        assert other == {"weight": 1, "preference": ZONE}
        assert less == {"weight": 100, "preference": {"matchFields": [NOT_2]}}


def test_the_rest_of_an_affinity_stays_and_without_nodes_all_of_it() -> None:
    preferred = [{"weight": 1, "preference": ZONE}]
    users = {"affinity": {"podAffinity": {"x": 1}, "nodeAffinity": {"preferredX": preferred}}, "containers": []}
    made = avoiding(users, ("node1",))
    assert made["containers"] == []
    assert made["affinity"]["podAffinity"] == {"x": 1}
    assert made["affinity"]["nodeAffinity"]["preferredX"] == preferred
    assert avoiding(users, ()) is users
    assert REQUIRED not in users["affinity"]["nodeAffinity"], "the user's template is not changed"


def test_pods_and_placeholders_avoid_the_nodes_and_their_jobs_say_so() -> None:
    of = job(nodes=2, elastic={"minNodes": 1}, template={"spec": required(ZONE)})
    made = build_job(of, "team", 2, 2, SETTINGS, ("node1", "node2"))
    holders = build_placeholders(observed(of), 1, SETTINGS, ("node1", "node2"))
    for manifest in (made, holders):
        assert manifest["metadata"]["annotations"] == {AVOIDED_NODES: "node1,node2"}
        pod = manifest["spec"]["template"]["spec"]
        assert terms(pod) == [{**ZONE, "matchFields": [NOT_1, NOT_2]}]
        assert "podAntiAffinity" in pod["affinity"]
        stored = {
            **manifest,
            "metadata": {**manifest["metadata"], "uid": "u", "creationTimestamp": "2026-11-23T12:00:00Z"},
        }
        assert job_facts(stored, UID).avoids == ("node1", "node2")
    plain = build_job(of, "team", 2, 2, SETTINGS)
    assert "annotations" not in plain["metadata"]
    assert terms(plain["spec"]["template"]["spec"]) == [ZONE]


def test_the_trainer_which_may_be_older_does_not_get_the_setting() -> None:
    of = job(recovery={"avoidNodeSeconds": 60, "gracePeriodSeconds": 30})
    sent = run_config(of, "team", 1, 2).to_json()
    assert "avoidNodeSeconds" not in sent
    assert '"gracePeriodSeconds":30' in sent
