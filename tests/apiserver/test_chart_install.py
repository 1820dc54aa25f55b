"""The chart against a real API server: what helm installs is valid, allowed, upgraded, and kept where it must be."""

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from testcluster import ControlPlane
from tests.support.apiserver.api import wait_for
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.audit import denied, requests, used
from tests.support.machine.python import ROOT

CHART = ROOT / "charts" / "distill-operator"
NAMESPACE = "distill-system"
CRD = "crd/distilljobs.distilljob.dev"
EVERYTHING = ("--set", "admissionPolicy.enabled=true,monitoring.dashboard.enabled=true")


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane whose namespaces refuse every pod that the restricted standard forbids."""
    with ControlPlane.start(tmp_path_factory.mktemp("chart") / "plane", scheduler=False, audit=True) as plane:
        for name in (NAMESPACE, "team-a", "team-b"):
            labels = {"pod-security.kubernetes.io/enforce": "restricted"}
            plane.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
        yield plane


@pytest.fixture
def install(plane: ControlPlane) -> Iterator[Any]:
    """install(chart=…, *flags) makes or upgrades the release, which is gone after the test."""

    def helm(*flags: str, chart: Path = CHART) -> None:
        plane.helm("upgrade", "--install", "distill", str(chart), "--namespace", NAMESPACE, *flags)

    yield helm
    plane.helm("uninstall", "distill", "--namespace", NAMESPACE, "--ignore-not-found", "--wait")


Wish = tuple[str, str, str, str | None]
"""verb, API group, resource or resource/subresource, namespace or None for all"""


def allowed(plane: ControlPlane, who: str, *wishes: Wish) -> list[bool]:
    """Which of the wishes the API server would grant."""
    reviews = []
    for verb, group, resource, namespace in wishes:
        resource, _, subresource = resource.partition("/")
        attributes = {"verb": verb, "group": group, "resource": resource, "subresource": subresource}
        if namespace:
            attributes["namespace"] = namespace
        reviews.append(
            {
                "apiVersion": "authorization.k8s.io/v1",
                "kind": "SubjectAccessReview",
                "spec": {"user": who, "groups": ["system:authenticated"], "resourceAttributes": attributes},
            }
        )
    answers = plane.kubectl(
        "create", "-f", "-", "-o", 'jsonpath={.status.allowed}{"\\n"}', stdin=yaml.safe_dump_all(reviews)
    )
    return [answer == "true" for answer in answers.split()]


OPERATOR = f"system:serviceaccount:{NAMESPACE}:distill-distill-operator"


def test_what_is_installed_is_valid_and_its_pod_is_admitted(plane: ControlPlane, install: Any) -> None:
    install(*EVERYTHING)
    plane.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    deadline = time.monotonic() + 30
    while not (pods := json.loads(plane.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]):
        assert time.monotonic() < deadline, plane.kubectl("get", "events", "-n", NAMESPACE)
        time.sleep(0.5)
    assert pods[0]["spec"]["containers"][0]["image"] == "distill-operator:0.1.0"


def test_the_test_pod_of_helm_is_admitted_too(plane: ControlPlane) -> None:
    rendered = plane.helm("template", "distill", str(CHART), "-n", NAMESPACE, "-s", "templates/tests/installed.yaml")
    assert "created" in plane.kubectl("apply", "--dry-run=server", "-f", "-", stdin=rendered)


def test_operator_may_do_its_work_and_no_more(plane: ControlPlane, install: Any) -> None:
    install()
    needed: list[Wish] = [
        (verb, rule["apiGroups"][0], resource, "team-a")
        for rule in yaml.safe_load((CHART / "files/operator-rules.yaml").read_text())["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    ]
    needed.append(("create", "coordination.k8s.io", "leases", NAMESPACE))
    assert all(allowed(plane, OPERATOR, *needed))
    foreign: list[Wish] = [
        ("get", "", "secrets", "team-a"),
        ("create", "", "pods", "team-a"),
        ("update", "", "pods/status", "team-a"),
        ("create", "", "pods/exec", "team-a"),
        ("list", "", "nodes", None),
        ("list", "", "namespaces", None),
        ("update", "distilljob.dev", "distilljobs", "team-a"),
        ("update", "distilljob.dev", "distilljobs/scale", "team-a"),
        ("delete", "", "persistentvolumeclaims", "team-a"),
        ("update", "coordination.k8s.io", "leases", NAMESPACE),  # of any name
        ("create", "coordination.k8s.io", "leases", "team-a"),
        ("list", "apiextensions.k8s.io", "customresourcedefinitions", None),
    ]
    assert not any(allowed(plane, OPERATOR, *foreign))


def test_namespaced_operator_may_work_in_its_namespaces_only(plane: ControlPlane, install: Any) -> None:
    install("--set", "watchNamespaces={team-a}")
    wishes: list[Wish] = [
        ("create", "batch", "jobs", "team-a"),
        ("create", "batch", "jobs", "team-b"),
        ("list", "distilljob.dev", "distilljobs", None),
    ]
    assert allowed(plane, OPERATOR, *wishes) == [True, False, False]


JOB: dict[str, Any] = {
    "apiVersion": "distilljob.dev/v1alpha1",
    "kind": "DistillJob",
    "spec": {
        "student": {"model": "yolo26n.yaml"},
        "dataset": {"config": "digits.yaml"},
        "nodes": 2,
        "accelerators": {"perNode": 0},
        "training": {"batch": 8},
        "volumes": {
            volume: {"claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}}
            for volume in ("checkpoints", "data")
        },
    },
}


@pytest.mark.parametrize(
    ("watched", "namespace"), [([], "team-b"), (["team-a"], "team-a")], ids=["cluster-wide", "namespaced"]
)
def test_operator_is_refused_nothing_that_it_asks_for(
    plane: ControlPlane, install: Any, tmp_path: Path, watched: list[str], namespace: str
) -> None:
    install("--set-json", f"watchNamespaces={json.dumps(watched)}")
    plane.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")
    account = plane.user_kubeconfig("operator", OPERATOR, group="system:serviceaccounts")
    operator = OperatorProcess(account, tmp_path / "operator.log")
    seen = len(requests(plane.audit_log, OPERATOR))
    try:
        lease = {"LEASE_NAME": "distill-distill-operator", "LEASE_NAMESPACE": NAMESPACE, "POD_NAME": "a"}
        operator.start(WATCH_NAMESPACES=",".join(watched), **lease)
        plane.apply(JOB | {"metadata": {"name": "digits", "namespace": namespace}})
        wait_for(lambda: "digits-a1" in plane.kubectl("get", "jobs", "-n", namespace, "-o", "name"), 30, operator.tail)
        plane.kubectl("delete", "distilljob", "digits", "-n", namespace, "--timeout=30s")
    finally:
        operator.stop()
    made = requests(plane.audit_log, OPERATOR)[seen:]
    assert {"create", "update", "watch"} <= {right.verb for right in used(made)}
    # It tries to read its CRD, which no Role can allow.
    assert {right.resource for right in denied(made)} == ({"customresourcedefinitions"} if watched else set())


LIMITS = {"enabled": True, "images": ["registry.example.com/ml/"], "priorityClasses": ["low"]}
JUDGED: dict[str, tuple[dict[str, Any], str]] = {
    "nothing": ({}, ""),
    "allowed image": ({"image": "registry.example.com/ml/trainer:1"}, ""),
    "other image": ({"image": "docker.io/x:1"}, "must begin with one of: registry.example.com/ml/"),
    "image of a sidecar": ({"template": {"spec": {"containers": [{"name": "a", "image": "x"}]}}}, "must begin with"),
    "image of an init container": (
        {"template": {"spec": {"initContainers": [{"name": "a", "image": "x"}]}}},
        "must begin with",
    ),
    "image volume": (
        {"template": {"spec": {"volumes": [{"name": "a", "image": {"reference": "x"}}]}}},
        "must begin with",
    ),
    "other volume": ({"template": {"spec": {"volumes": [{"name": "a", "emptyDir": {}}]}}}, ""),
    "host path": (
        {"template": {"spec": {"volumes": [{"name": "a", "hostPath": {"path": "/"}}]}}},
        "must not be of type hostPath",
    ),
    "privileged": (
        {"template": {"spec": {"containers": [{"name": "trainer", "securityContext": {"privileged": True}}]}}},
        "must not be privileged",
    ),
    "unprivileged": (
        {"template": {"spec": {"containers": [{"name": "trainer", "securityContext": {"runAsUser": 1}}]}}},
        "",
    ),
    "allowed priority": ({"scheduling": {"priorityClassName": "low"}}, ""),
    "other priority": ({"scheduling": {"priorityClassName": "high"}}, "must be one of: low"),
}
"""By name: fields of spec, and what the policy says; nothing where it admits the job."""


def test_the_admission_policy_says_what_is_allowed(plane: ControlPlane, install: Any) -> None:
    install("--set-json", f"admissionPolicy={json.dumps(LIMITS)}", "--set", "watchNamespaces={team-a}")
    plane.kubectl("wait", "--for=condition=Established", CRD, "--timeout=30s")

    def said(spec: dict[str, Any], namespace: str = "team-a") -> str:
        spec = {**JOB["spec"], **spec}
        job = {**JOB, "metadata": {"name": "judged", "namespace": namespace}, "spec": spec}
        try:
            plane.kubectl("create", "--dry-run=server", "-f", "-", stdin=yaml.safe_dump(job))
        except RuntimeError as error:
            return str(error)
        return ""

    wait_for(lambda: said(JUDGED["privileged"][0]) != "", 30, lambda: "the policy is not in force")
    for case, (spec, complaint) in JUDGED.items():
        answer = said(spec)
        assert complaint in answer, case
        assert bool(answer) == bool(complaint), f"{case}: {answer}"
        assert said(spec, "team-b") == "", "the policy is for watchNamespaces"


def test_users_who_may_view_or_edit_may_do_so_with_distilljobs(plane: ControlPlane, install: Any) -> None:
    install()
    for role in ("view", "edit"):
        plane.kubectl("create", "rolebinding", role, f"--clusterrole={role}", f"--user={role}er", "-n", "team-a")
    create: Wish = ("create", "distilljob.dev", "distilljobs", "team-a")
    watch: Wish = ("watch", "distilljob.dev", "distilljobs", "team-a")
    scale: Wish = ("patch", "distilljob.dev", "distilljobs/scale", "team-a")
    elsewhere: Wish = ("create", "distilljob.dev", "distilljobs", "team-b")
    deadline = time.monotonic() + 30  # the controller manager aggregates roles in the background
    while allowed(plane, "editer", create, watch, scale, elsewhere) != [True, True, True, False]:
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert allowed(plane, "viewer", create, watch, scale, elsewhere) == [False, True, False, False]


def test_upgrade_updates_the_crd_and_uninstall_keeps_it_with_its_jobs(
    plane: ControlPlane, install: Any, tmp_path: Path
) -> None:
    install()
    newer = tmp_path / "distill-operator"
    shutil.copytree(CHART, newer)
    crd = newer / "files/distilljob.yaml"
    crd.write_text(crd.read_text().replace("name: Images/s", "name: Pictures/s"))
    install(chart=newer)
    assert "Pictures/s" in plane.kubectl("get", CRD, "-o", "yaml")

    plane.helm("uninstall", "distill", "--namespace", NAMESPACE, "--wait")
    assert "distilljobs" in plane.kubectl("get", CRD, "-o", "name")
    install()
    assert "Images/s" in plane.kubectl("get", CRD, "-o", "yaml"), "a new release takes the kept CRD over"
