"""Who reaches the operator and metrics of jobs, and what training pods reach: by default, and never for nothing."""

from typing import Any

import pytest

from tests.chart.test_objects import only, told

PROMETHEUS_OPERATORS = {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/managed-by": "prometheus-operator"}
"""Labels that Prometheus Operator sets on every Prometheus: whoever installs the chart's monitors has it."""


def ingress(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = only(objects, "NetworkPolicy")["spec"]["ingress"]
    return rules


def policies(render: Any, **values: Any) -> list[dict[str, Any]]:
    objects: list[dict[str, Any]] = render({"networkPolicies": values})
    return objects


def test_the_operators_pod_admits_prometheus_and_helm_test_by_default(render: Any) -> None:
    objects = render()
    policy = only(objects, "NetworkPolicy")
    pod = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= pod.items()
    assert policy["spec"]["policyTypes"] == ["Ingress"]
    prometheus, test = policy["spec"]["ingress"]
    assert prometheus["ports"] == [{"port": "metrics"}]
    (peer,) = test["from"]
    assert peer["podSelector"]["matchLabels"].items() <= only(objects, "Pod")["metadata"]["labels"].items()


def test_a_prometheus_of_prometheus_operator_may_scrape_from_any_namespace(render: Any) -> None:
    (peer,) = ingress(render())[0]["from"]
    assert peer["namespaceSelector"] == {}
    (chosen,) = peer["podSelector"]["matchExpressions"]
    assert PROMETHEUS_OPERATORS[chosen["key"]] in chosen["values"]


def test_metrics_of_training_pods_are_for_the_operator_and_prometheus(render: Any) -> None:
    objects = render({"nameOverride": "op"})
    operator, *prometheus = told(objects).metrics_peers or ()
    assert prometheus == ingress(objects)[0]["from"]
    deployment = only(objects, "Deployment")
    namespace = {"kubernetes.io/metadata.name": deployment["metadata"]["namespace"]}
    assert operator == {
        "namespaceSelector": {"matchLabels": namespace},
        "podSelector": {"matchLabels": deployment["spec"]["selector"]["matchLabels"]},
    }


def test_training_pods_reach_gang_and_dns_by_default_and_what_is_added(render: Any) -> None:
    assert told(render()).trainer_egress == ()
    rule = {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": 443}]}
    assert told(policies(render, trainerExtraEgress=[rule])).trainer_egress == (rule,)
    assert told(policies(render, trainerEgress=False)).trainer_egress is None


def test_nobody_may_scrape_if_nobody_is_named(render: Any) -> None:
    objects = policies(render, prometheus=[])
    assert len(ingress(objects)) == 1
    assert len(told(objects).metrics_peers or ()) == 1


def test_policies_can_be_switched_off(render: Any) -> None:
    objects = policies(render, enabled=False)
    assert not [o for o in objects if o["kind"] == "NetworkPolicy"]
    assert (told(objects).metrics_peers, told(objects).trainer_egress) == (None, None)


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"trainerExtraEgress": [{}]}, "admits everything"),
        ({"trainerExtraEgress": [{"to": []}]}, "admits everything"),
        ({"trainerExtraEgress": [{"to": [{}]}]}, "/networkPolicies/trainerExtraEgress/0/to/0"),
        ({"trainerExtraEgress": [{"ports": [{"port": 443}]}], "trainerEgress": False}, "nothing is limited"),
        ({"trainerExtraEgress": [{"ports": [{"port": 443}]}], "enabled": False}, "nothing is limited"),
        ({"prometheus": [{}]}, "/networkPolicies/prometheus/0"),
        ({"prometheus": [{"matchLabels": {"app": "prometheus"}}]}, "/networkPolicies/prometheus/0"),
    ],
)
def test_policies_that_limit_nothing_are_refused(refused: Any, values: dict[str, Any], complaint: str) -> None:
    assert complaint in refused({"networkPolicies": values})
