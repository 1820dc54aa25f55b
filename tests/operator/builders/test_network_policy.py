"""The NetworkPolicy of a job, for what the installation says of scrapers and egress."""

from dataclasses import replace
from typing import Any

from distill_operator.builders import build_network_policy
from distill_operator.builders.metadata import labels
from tests.support.operator.samples import SETTINGS, UID, job


def test_the_network_policy_of_a_job() -> None:
    made = build_network_policy(job(accelerators={"perNode": 4}), "team", SETTINGS)
    assert made["metadata"].pop("ownerReferences")[0]["uid"] == UID
    assert made == {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "tiny", "namespace": "team", "labels": labels(job())},
        "spec": {
            "podSelector": {"matchLabels": {"distilljob.dev/job": "tiny"}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"distilljob.dev/job": "tiny"}}}]},
                {"ports": [{"port": 9400, "endPort": 9403, "protocol": "TCP"}]},
            ],
        },
    }


GANG = {"podSelector": {"matchLabels": {"distilljob.dev/job": "tiny"}}}
PEERS = ({"podSelector": {"matchLabels": {"app": "operator"}}}, {"namespaceSelector": {}})


def policy(**settings: Any) -> dict[str, Any]:
    spec: dict[str, Any] = build_network_policy(job(), "team", replace(SETTINGS, **settings))["spec"]
    return spec


def test_metrics_are_for_the_peers_that_the_installation_names() -> None:
    gang, metrics = policy(metrics_peers=PEERS)["ingress"]
    assert gang == {"from": [GANG]}
    assert (metrics["from"], metrics["ports"][0]["port"]) == (list(PEERS), 9400)


def test_no_peers_are_nobody_and_not_everybody() -> None:
    assert policy(metrics_peers=())["ingress"] == [{"from": [GANG]}]


def test_pods_reach_gang_and_names_and_what_the_installation_adds() -> None:
    extra = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}
    spec = policy(trainer_egress=(extra,))
    assert spec["policyTypes"] == ["Ingress", "Egress"]
    gang, dns, added = spec["egress"]
    assert (gang, added) == ({"to": [GANG]}, extra)
    assert {(port["port"], port["protocol"]) for port in dns["ports"]} == {
        (53, "UDP"), (53, "TCP"), (5353, "UDP"), (5353, "TCP")
    }  # fmt: skip
