"""The chart's objects: what is installed, with which rights, under which restrictions."""

from typing import Any

import pytest
import yaml

from distill_api.constants import OPERATOR_HEALTH_PORT, OPERATOR_METRICS_PORT
from distill_operator.types.settings import Settings
from tests.support.machine.python import ROOT


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {o["kind"] for o in objects}


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [only(objects, "Deployment")["spec"]["template"]["spec"], only(objects, "Pod")["spec"]]


def test_chart_carries_the_generated_crd_unchanged() -> None:
    copy = ROOT / "charts/distill-operator/files/distilljob.yaml"
    assert copy.read_text() == (ROOT / "crds/distilljob.yaml").read_text(), "run `make generate`"


def test_crd_is_a_template_that_uninstall_keeps(render: Any) -> None:
    crd = only(render(), "CustomResourceDefinition")
    source = yaml.safe_load((ROOT / "crds/distilljob.yaml").read_text())
    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["name"] == source["metadata"]["name"]
    assert crd["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}


def test_crd_may_go_with_the_release_or_be_left_out(render: Any) -> None:
    assert "annotations" not in only(render({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]
    assert "CustomResourceDefinition" not in kinds(render({"crds": {"install": False}}))


def test_there_is_never_more_than_one_operator(render: Any) -> None:
    spec = only(render(), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (1, {"type": "Recreate"})


def test_every_pod_satisfies_the_restricted_pod_security_standard(render: Any) -> None:
    for spec in pod_specs(render()):
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["runAsUser"] > 0
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & spec.keys()
        assert all(volume.keys() == {"name", "emptyDir"} for volume in spec.get("volumes", []))
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }


def test_operator_is_told_what_it_needs(render: Any) -> None:
    values = {
        "trainer": {"image": "example/trainer:2"},
        "watchNamespaces": ["a", "b"],
        "operator": {"logLevel": "DEBUG", "claimWaitSeconds": 1, "backoffCapSeconds": 1000000},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "proxy:3128"}],
    }
    (container,) = only(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert env["HTTPS_PROXY"] == "proxy:3128"
    assert Settings.from_environment(env) == Settings(
        trainer_image="example/trainer:2",
        namespaces=("a", "b"),
        log_level="DEBUG",
        claim_wait=1,
        backoff_cap=1_000_000,
    )


def test_default_values_are_the_operators_own_defaults(render: Any) -> None:
    (container,) = only(render(), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    assert Settings.from_environment(env) == Settings(trainer_image="distill-trainer:0.1.0")


def test_ports_and_probes_are_the_contracts(render: Any) -> None:
    objects = render()
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"metrics": OPERATOR_METRICS_PORT, "health": OPERATOR_HEALTH_PORT}
    assert container["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert container["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    service = only(objects, "Service")["spec"]
    assert {port["name"]: port["port"] for port in service["ports"]} == ports
    labels = only(objects, "Deployment")["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, "distill-operator:0.1.0"),
        ({"repository": "reg/op", "tag": "main"}, "reg/op:main"),
        ({"repository": "reg/op", "tag": "main", "digest": f"sha256:{'a' * 64}"}, f"reg/op@sha256:{'a' * 64}"),
    ],
)
def test_image_reference(render: Any, image: dict[str, str], reference: str) -> None:
    for spec in pod_specs(render({"image": image})):
        assert spec["containers"][0]["image"] == reference


def test_cluster_wide_operator_has_one_cluster_role(render: Any) -> None:
    objects = render({"rbac": {"aggregateUserRoles": False}})
    role, binding = only(objects, "ClusterRole"), only(objects, "ClusterRoleBinding")
    assert not {"Role", "RoleBinding"} & kinds(objects)
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = only(objects, "ServiceAccount")["metadata"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]


def test_namespaced_operator_has_no_cluster_wide_rights(render: Any) -> None:
    objects = render({"watchNamespaces": ["a", "b"], "rbac": {"aggregateUserRoles": False}})
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)
    for kind in ("Role", "RoleBinding"):
        assert [o["metadata"]["namespace"] for o in objects if o["kind"] == kind] == ["a", "b"]


def test_operators_rights_are_closed(render: Any) -> None:
    role = only(render({"rbac": {"aggregateUserRoles": False}}), "ClusterRole")
    named = {
        (group, resource) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
    }
    assert not {"secrets", "nodes", "namespaces", "configmaps", "pods/exec"} & {resource for _, resource in named}
    assert not [rule for rule in role["rules"] if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]


def test_users_roles_aggregate_upwards(render: Any) -> None:
    roles = {o["metadata"]["name"]: o for o in render() if o["kind"] == "ClusterRole"}

    def aggregates(name: str) -> set[str]:
        prefix = "rbac.authorization.k8s.io/aggregate-to-"
        labels = roles[name]["metadata"]["labels"]
        return {label.removeprefix(prefix) for label in labels if label.startswith(prefix)}

    assert aggregates("distill-distill-operator-view") == {"view", "edit", "admin"}
    assert aggregates("distill-distill-operator-edit") == {"edit", "admin"}
    assert "delete" not in roles["distill-distill-operator-view"]["rules"][0]["verbs"]
    assert "delete" in roles["distill-distill-operator-edit"]["rules"][0]["verbs"]


def test_network_policies_are_asked_for(render: Any) -> None:
    assert "NetworkPolicy" not in kinds(render())
    objects = render({"networkPolicies": {"enabled": True, "trainerNamespaces": ["a", "b"]}})
    policies = [(o["metadata"]["name"], o["metadata"]["namespace"]) for o in objects if o["kind"] == "NetworkPolicy"]
    assert policies == [
        ("distill-distill-operator", "distill-system"),
        ("distill-distill-operator-trainers", "a"),
        ("distill-distill-operator-trainers", "b"),
    ]


def test_a_release_named_like_the_chart_does_not_stutter(render: Any) -> None:
    names = {o["metadata"]["name"] for o in render({}, "distill-operator") if o["kind"] == "Service"}
    assert names == {"distill-operator"}
