"""Values: each explained, each checked, none unknown."""

import json
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from testcluster.artifacts import binaries
from tests.support.machine.python import ROOT

CHART = ROOT / "charts" / "distill-operator"


def test_helm_finds_nothing_to_complain_about() -> None:
    done = subprocess.run([binaries.helm(), "lint", "--strict", CHART], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout


def test_every_value_has_a_comment() -> None:
    lines = (CHART / "values.yaml").read_text().splitlines()
    bare, map_is_explained = [], -1
    for before, line in zip(["", *lines], lines, strict=False):
        indent = len(line) - len(line.lstrip())
        explained = before.lstrip().startswith("#")
        if map_is_explained >= 0 and indent > map_is_explained:
            continue  # a part of a value that is explained as a whole, such as resources.limits
        map_is_explained = -1
        if re.fullmatch(r"\s*\w+:", line):
            map_is_explained = indent if explained else -1
        elif re.match(r"\s*\w+: ", line) and not explained:
            bare.append(line.strip())
    assert not bare


def leaves(schema: dict[str, Any], path: str = "") -> Iterator[str]:
    for name, sub in schema.get("properties", {}).items():
        yield from leaves(sub, f"{path}.{name}") if "properties" in sub else [f"{path}.{name}"]


def test_schema_and_values_name_the_same() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for path in leaves(schema):
        if path in {".global", ".resources.claims"}:  # Helm's own, and optional in Kubernetes
            continue
        at = values
        for part in path[1:].split("."):
            assert part in at, f"values.yaml has no {path}"
            at = at[part]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replicas": 0}, "/replicas"),
        ({"monitoring": {"podMonitors": {"enabled": True}}}, "podMonitors"),
        ({"monitoring": {"prometheusRule": {"runbooks": "docs"}}}, "/monitoring/prometheusRule/runbooks"),
        ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy"),
        ({"image": {"digest": "abc"}}, "/image/digest"),
        ({"trainer": {"digest": "latest"}}, "/trainer/digest"),
        ({"trainer": {"userId": 0}}, "/trainer/userId"),
        ({"trainer": {"image": "a@sha256:b", "digest": f"sha256:{'a' * 64}"}}, "remove one of them"),
        ({"podSecurityContext": {"runAsUser": 0}}, "/podSecurityContext/runAsUser"),
        ({"watchNamespaces": "team"}, "/watchNamespaces"),
        ({"watchNamespaces": ["Team_A"]}, "/watchNamespaces/0"),
        ({"operator": {"backoffBaseSeconds": 0}}, "/operator/backoffBaseSeconds"),
        ({"operator": {"forcedPodDeletion": "sometimes"}}, "/operator/forcedPodDeletion"),
        ({"extraEnv": [{"name": "WATCH_NAMESPACES", "value": "x"}]}, "/extraEnv/0/name"),
        ({"extraEnv": [{"name": "LEASE_NAME", "value": ""}]}, "/extraEnv/0/name"),
        ({"serviceAccount": {"create": False}}, "set serviceAccount.name"),
    ],
)
def test_wrong_values_are_refused_by_name(refused: Any, values: dict[str, Any], complaint: str) -> None:
    assert complaint in refused(values)


@pytest.mark.parametrize("monitor", ["serviceMonitor", "podMonitor", "prometheusRule"])
def test_monitors_without_prometheus_operator_are_refused_with_the_remedy(refused: Any, monitor: str) -> None:
    message = refused({"monitoring": {monitor: {"enabled": True}}})
    assert f"monitoring.{monitor}.enabled" in message
    assert "install Prometheus Operator" in message


def test_placement_settings_reach_the_pod(render: Any) -> None:
    values = {
        "priorityClassName": "high",
        "nodeSelector": {"pool": "system"},
        "tolerations": [{"key": "system", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "imagePullSecrets": [{"name": "registry"}],
        "podLabels": {"team": "ml"},
        "podAnnotations": {"note": "x"},
        "resources": {"limits": {"memory": "1Gi"}},
    }
    (deployment,) = [o for o in render(values) if o["kind"] == "Deployment"]
    template = deployment["spec"]["template"]
    for field in ("priorityClassName", "nodeSelector", "tolerations", "affinity", "imagePullSecrets"):
        assert template["spec"][field] == values[field]
    assert template["metadata"]["labels"]["team"] == "ml"
    assert template["metadata"]["annotations"] == {"note": "x"}
    assert template["spec"]["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}
