"""The checks of `distill doctor`, and their mends."""

from dataclasses import replace
from typing import Any

import pytest

from distill_cli.screens.doctor import doctor
from distill_cli.views.doctor import ENFORCE, Check, Facts, Level, checks
from tests.support.cli.stored import drawn


def operator_pod(ready: bool = True, watches: str = "", version: str = "1.0") -> dict[str, Any]:
    environment = [{"name": "WATCH_NAMESPACES", "value": watches}]
    return {
        "metadata": {"namespace": "distill-system", "labels": {"app.kubernetes.io/version": version}},
        "spec": {"containers": [{"name": "operator", "env": environment}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def named(name: str, **rest: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **rest}


GPU_POD = {
    "metadata": {},
    "spec": {"nodeName": "a", "containers": [{"resources": {"limits": {"nvidia.com/gpu": "3"}}}]},
    "status": {"phase": "Running"},
}
DEFAULT_CLASS = {"metadata": {"name": "nfs", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}}
WELL = Facts(
    namespace="team",
    version={"gitVersion": "v1.34.4", "minor": "34"},
    namespace_object={"metadata": {"labels": {ENFORCE: "restricted"}}},
    namespace_exists=True,
    crd={"metadata": {"annotations": {"distilljob.dev/schema-hash": "abc"}}},
    crd_installed=True,
    schema_hash="abc",
    own_version="1.0",
    operators=[operator_pod()],
    rights={"list DistillJobs": True},
    storage_classes=[DEFAULT_CLASS],
    claims=[named("runs", spec={"accessModes": ["ReadWriteMany"]}, status={"phase": "Bound"})],
    nodes=[named("a", status={"allocatable": {"nvidia.com/gpu": "8"}}), named("b")],
    gpu_pods=[GPU_POD],
    groups=frozenset({"monitoring.coreos.com"}),
    pod_monitors=[named("distill-trainers")],
    quotas=[],
)


def check(facts: Facts, name: str) -> Check:
    return next(found for found in checks(facts) if found.name == name)


def test_a_cluster_that_is_well() -> None:
    found = checks(WELL)
    assert {each.level for each in found} == {Level.OK}
    assert not any(each.mend for each in found)
    assert check(WELL, "GPUs").says == "8 on 1 node, 5 not requested by any pod"
    assert "all is well" in drawn(doctor(found, "context", "https://server"))


@pytest.mark.parametrize(
    ("change", "name", "level", "said"),
    [
        ({"version": {"gitVersion": "v1.28.1", "minor": "28+"}}, "Kubernetes", Level.FAIL, "v1.28.1 is too old"),
        ({"namespace_exists": False}, "namespace", Level.FAIL, "does not exist"),
        ({"crd_installed": False}, "CRD", Level.FAIL, "has no DistillJobs"),
        ({"schema_hash": "new"}, "CRD", Level.WARN, "of another version"),
        ({"crd": None}, "CRD", Level.OK, "may not read which version"),
        ({"operators": []}, "operator", Level.FAIL, "jobs stay Pending"),
        ({"operators": [operator_pod(ready=False)]}, "operator", Level.FAIL, "no pod in distill-system is ready"),
        ({"operators": [operator_pod(version="0.9")]}, "operator", Level.WARN, "version 0.9"),
        ({"operators": [operator_pod(watches="a,b")]}, "watched", Level.FAIL, "does not watch team"),
        ({"operators": [operator_pod(watches="a,team")]}, "watched", Level.OK, "watches team"),
        ({"operators": None}, "operator", Level.UNKNOWN, "may not read"),
        ({"rights": {"list DistillJobs": False}}, "rights", Level.FAIL, "list DistillJobs"),
        ({"rights": {"read logs (logs, curves)": False}}, "rights", Level.WARN, "read logs"),
        ({"storage_classes": []}, "storage", Level.WARN, "claimTemplates do not work"),
        ({"storage_classes": [named("slow")]}, "storage", Level.WARN, "no default storage class; there are slow"),
        ({"claims": []}, "claims", Level.WARN, "no ReadWriteMany claim"),
        (
            {"claims": [named("x", spec={}, status={"phase": "Lost"})]},
            "claims",
            Level.WARN,
            "have lost their volume: x",
        ),
        ({"nodes": [named("a")]}, "GPUs", Level.WARN, "no node has nvidia.com/gpu"),
        ({"nodes": None}, "GPUs", Level.UNKNOWN, "nodes"),
        ({"groups": frozenset()}, "Prometheus", Level.WARN, "no Prometheus Operator"),
        ({"pod_monitors": []}, "Prometheus", Level.WARN, "nothing scrapes training pods"),
    ],
)
def test_what_is_wrong_is_named_with_its_mend(change: dict[str, Any], name: str, level: Level, said: str) -> None:
    found = check(replace(WELL, **change), name)
    assert found.level == level
    assert said in found.says
    assert bool(found.mend) == (level != Level.OK)


def test_a_full_quota_is_told() -> None:
    quota = named("gpus", status={"hard": {"requests.nvidia.com/gpu": "4"}, "used": {"requests.nvidia.com/gpu": "4"}})
    found = check(replace(WELL, quotas=[quota]), "quota")
    assert found.says == "gpus is used up: requests.nvidia.com/gpu 4/4"
