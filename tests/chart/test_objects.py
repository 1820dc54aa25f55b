"""The chart's objects: what is installed, with which rights, under which restrictions."""

from typing import Any

import pytest
import yaml

from distill_api.constants import GROUP, OPERATOR_HEALTH_PORT, OPERATOR_METRICS_PORT, PLURAL, SCHEMA_HASH
from distill_operator.types.settings import Settings
from tests.support.machine.python import ROOT

LEASE = {
    "lease_name": "distill-distill-operator",
    "lease_namespace": "distill-system",
    "identity": "metadata.name",
    "placeholder_priority_class": "distill-distill-operator-placeholder",
}


def only(objects: list[dict[str, Any]], kind: str, name: str | None = None) -> dict[str, Any]:
    found = [o for o in objects if o["kind"] == kind and name in (None, o["metadata"]["name"])]
    assert len(found) == 1, f"{len(found)} objects of kind {kind}"
    return found[0]


def kinds(objects: list[dict[str, Any]]) -> set[str]:
    return {o["kind"] for o in objects}


def pod_specs(objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [only(objects, "Deployment")["spec"]["template"]["spec"], only(objects, "Pod")["spec"]]


def told(objects: list[dict[str, Any]]) -> Settings:
    """What the operator reads from the environment that the Deployment gives it."""
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    return Settings.from_environment(environment(container))


def test_chart_carries_the_generated_crd_unchanged() -> None:
    copy = ROOT / "charts/distill-operator/files/distilljob.yaml"
    assert copy.read_text() == (ROOT / "crds/distilljob.yaml").read_text(), "run `make generate`"


def test_crd_is_a_template_that_uninstall_keeps(render: Any) -> None:
    crd = only(render(), "CustomResourceDefinition")
    source = yaml.safe_load((ROOT / "crds/distilljob.yaml").read_text())
    assert crd["spec"] == source["spec"]
    assert crd["metadata"]["name"] == source["metadata"]["name"]
    kept = {"helm.sh/resource-policy": "keep"}
    assert crd["metadata"]["annotations"] == source["metadata"]["annotations"] | kept


def test_crd_may_go_with_the_release_or_be_left_out(render: Any) -> None:
    kept = only(render({"crds": {"keep": False}}), "CustomResourceDefinition")["metadata"]["annotations"]
    assert kept.keys() == {SCHEMA_HASH}
    assert "CustomResourceDefinition" not in kinds(render({"crds": {"install": False}}))


@pytest.mark.parametrize(("replicas", "strategy"), [(1, "Recreate"), (2, "RollingUpdate")])
def test_a_standby_is_replaced_before_its_leader_goes(render: Any, replicas: int, strategy: str) -> None:
    spec = only(render({"replicas": replicas}), "Deployment")["spec"]
    assert (spec["replicas"], spec["strategy"]) == (replicas, {"type": strategy})


def test_several_operators_spread_and_are_drained_one_at_a_time(render: Any) -> None:
    objects = render({"replicas": 2})
    pod = only(objects, "Deployment")["spec"]["template"]
    (wish,) = pod["spec"]["affinity"]["podAntiAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["podAffinityTerm"]["topologyKey"] == "kubernetes.io/hostname"
    budget = only(objects, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] == 1
    for chosen in (budget["selector"], wish["podAffinityTerm"]["labelSelector"]):
        assert chosen["matchLabels"].items() <= pod["metadata"]["labels"].items()
    mine = {"nodeAffinity": {}}
    assert only(render({"replicas": 2, "affinity": mine}), "Deployment")["spec"]["template"]["spec"]["affinity"] == mine


def test_one_operator_can_be_drained(render: Any) -> None:
    objects = render()
    assert "PodDisruptionBudget" not in kinds(objects)
    assert "affinity" not in only(objects, "Deployment")["spec"]["template"]["spec"]


@pytest.mark.parametrize("namespaces", [[], ["a", "b"]])
def test_operators_may_use_their_own_lease_and_no_other(render: Any, namespaces: list[str]) -> None:
    objects = render({"watchNamespaces": namespaces})
    name = "distill-distill-operator-leader"
    role, binding = only(objects, "Role", name), only(objects, "RoleBinding", name)
    assert role["metadata"]["namespace"] == binding["metadata"]["namespace"] == "distill-system"
    assert binding["roleRef"]["name"] == name
    (container,) = only(objects, "Deployment")["spec"]["template"]["spec"]["containers"]
    settings = Settings.from_environment(environment(container))
    create, use = role["rules"]
    assert (create["verbs"], use["verbs"], use["resourceNames"]) == (
        ["create"],
        ["get", "update"],
        [settings.lease_name],
    )
    assert settings.lease_namespace == role["metadata"]["namespace"]
    assert (
        only(objects, "RoleBinding", "distill-distill-operator-leader")["roleRef"]["name"] == role["metadata"]["name"]
    )


def environment(container: dict[str, Any]) -> dict[str, str]:
    """The container's environment; what Kubernetes fills in is the path of its field."""
    given = {v["name"]: v["value"] for v in container["env"] if "value" in v}
    return given | {v["name"]: v["valueFrom"]["fieldRef"]["fieldPath"] for v in container["env"] if "valueFrom" in v}


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
        "operator": {"logLevel": "DEBUG", "logFormat": "text", "claimWaitSeconds": 1, "backoffCapSeconds": 1000000},
        "networkPolicies": {"enabled": False},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "proxy:3128"}],
    }
    (container,) = only(render(values), "Deployment")["spec"]["template"]["spec"]["containers"]
    env = environment(container)
    assert env["HTTPS_PROXY"] == "proxy:3128"
    assert Settings.from_environment(env) == Settings(
        trainer_image="example/trainer:2",
        namespaces=("a", "b"),
        log_level="DEBUG",
        claim_wait=1,
        backoff_cap=1_000_000,
        **LEASE,
    )


def test_default_values_are_the_operators_own_defaults(render: Any) -> None:
    settings = told(render({"networkPolicies": {"enabled": False}}))
    assert settings == Settings(trainer_image="distill-trainer:0.1.0", log_format="json", **LEASE)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({}, "distill-distill-operator-placeholder"),
        ({"name": "idle", "value": -5}, "idle"),
        ({"create": False, "name": "of-the-cluster"}, "of-the-cluster"),
        ({"create": False}, ""),
    ],
)
def test_placeholders_have_a_priority_that_preempts_nobody(render: Any, values: dict[str, Any], name: str) -> None:
    objects = render({"growth": {"priorityClass": values}})
    assert told(objects).placeholder_priority_class == name
    classes = [o for o in objects if o["kind"] == "PriorityClass"]
    assert len(classes) == values.get("create", True)
    for made in classes:
        assert (made["metadata"]["name"], made["preemptionPolicy"]) == (name, "Never")
        assert made["value"] < 0


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


@pytest.mark.parametrize(
    ("trainer", "reference"),
    [
        ({}, "distill-trainer:0.1.0"),
        ({"image": "reg:5000/trainer:main"}, "reg:5000/trainer:main"),
        ({"image": "reg:5000/trainer:main", "digest": f"sha256:{'a' * 64}"}, f"reg:5000/trainer@sha256:{'a' * 64}"),
        ({"image": "reg:5000/trainer", "digest": f"sha256:{'a' * 64}"}, f"reg:5000/trainer@sha256:{'a' * 64}"),
        ({"image": f"reg/trainer@sha256:{'b' * 64}"}, f"reg/trainer@sha256:{'b' * 64}"),
    ],
)
def test_trainer_image_reference(render: Any, trainer: dict[str, str], reference: str) -> None:
    assert told(render({"trainer": trainer})).trainer_image == reference


def test_user_ids_may_be_left_to_the_platform(render: Any) -> None:
    ids = {"runAsUser": None, "runAsGroup": None}
    objects = render({"podSecurityContext": ids, "trainer": {"userId": None}})
    for spec in pod_specs(objects):
        assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert told(objects).trainer_user is None
    assert told(render({"trainer": {"userId": 1000660000}})).trainer_user == 1000660000


def test_cluster_wide_operator_has_one_cluster_role(render: Any) -> None:
    objects = render({"rbac": {"aggregateUserRoles": False}})
    role, binding = only(objects, "ClusterRole"), only(objects, "ClusterRoleBinding")
    assert [o["metadata"]["name"] for o in objects if o["kind"] == "Role"] == ["distill-distill-operator-leader"]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = only(objects, "ServiceAccount")["metadata"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["name"], "namespace": account["namespace"]}
    ]


def test_namespaced_operator_has_no_cluster_wide_rights(render: Any) -> None:
    objects = render({"watchNamespaces": ["a", "b"], "rbac": {"aggregateUserRoles": False}})
    assert not {"ClusterRole", "ClusterRoleBinding"} & kinds(objects)
    for kind in ("Role", "RoleBinding"):
        assert [o["metadata"]["namespace"] for o in objects if o["kind"] == kind] == ["a", "b", "distill-system"]


@pytest.mark.parametrize("watched", [[], ["a", "b"]])
@pytest.mark.parametrize("policy", ["always", "never"])
def test_pods_are_deleted_by_force_only_where_that_is_allowed(render: Any, watched: list[str], policy: str) -> None:
    values = {"operator": {"forcedPodDeletion": policy}, "watchNamespaces": watched}
    objects = render({**values, "rbac": {"aggregateUserRoles": False}})
    lease = "coordination.k8s.io"
    roles = [o for o in objects if o["kind"] in ("Role", "ClusterRole") and lease not in o["rules"][0]["apiGroups"]]
    assert len(roles) == max(1, len(watched))
    for role in roles:
        verbs = {verb for rule in role["rules"] if rule["resources"] == ["pods"] for verb in rule["verbs"]}
        assert verbs == {"list", "watch"} | ({"delete"} if policy == "always" else set())
    assert told(objects).forced_pod_deletion is (policy == "always")


def test_operators_rights_are_closed(render: Any) -> None:
    role = only(render({"rbac": {"aggregateUserRoles": False}}), "ClusterRole")
    named = {
        (group, resource) for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
    }
    assert not {"secrets", "nodes", "namespaces", "configmaps", "pods/exec"} & {resource for _, resource in named}
    assert not [rule for rule in role["rules"] if "*" in (*rule["apiGroups"], *rule["resources"], *rule["verbs"])]


def test_operator_reads_no_crd_but_its_own(render: Any) -> None:
    role = only(render({"rbac": {"aggregateUserRoles": False}}), "ClusterRole")
    (rule,) = [rule for rule in role["rules"] if rule["apiGroups"] == ["apiextensions.k8s.io"]]
    assert (rule["resourceNames"], rule["verbs"]) == ([f"{PLURAL}.{GROUP}"], ["get"])


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


def test_a_release_named_like_the_chart_does_not_stutter(render: Any) -> None:
    names = {o["metadata"]["name"] for o in render({}, "distill-operator") if o["kind"] == "Service"}
    assert names == {"distill-operator"}
