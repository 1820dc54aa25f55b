"""Least privilege: one life of a job in which the operator uses every right that the chart gives it."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import Label, Phase
from distill_api.reasons import Reason
from testcluster import ControlPlane
from tests.support.apiserver.api import Object, wait_for
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.apiserver.team import SIZE, Team
from tests.support.audit import Right, denied, given, requests, used
from tests.support.machine.python import ROOT

RELEASE = "rights-distill-operator"
ACCOUNT = f"system:serviceaccount:default:{RELEASE}"
RBAC = ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")
CHECKED_AT_ADMISSION = {Right("distilljob.dev", "distilljobs/finalizers", "update")}
"""In no request: the admission plugin OwnerReferencesPermissionEnforcement asks for it when a child is created."""
LEASE = {"LEASE_NAME": RELEASE, "LEASE_NAMESPACE": "default", "POD_NAME": "a"}


@pytest.fixture
def roles(plane: ControlPlane) -> list[Object]:
    """The roles of the chart with its default values, bound to the account of a release."""
    chart = plane.helm("template", "rights", str(ROOT / "charts/distill-operator"), "--namespace", "default")
    objects = [obj for obj in yaml.safe_load_all(chart) if obj and obj["kind"] in RBAC]
    operators = [obj for obj in objects if obj["metadata"]["labels"].get("app.kubernetes.io/component") == "operator"]
    plane.apply(*operators)
    return [obj for obj in operators if obj["kind"].endswith("Role")]


@pytest.fixture
def mine(
    plane: ControlPlane, roles: list[Object], team: Team, operator: OperatorProcess, tmp_path: Path
) -> Iterator[OperatorProcess]:
    """The operator with that account, in place of the other tests' one."""
    del roles
    operator.stop()
    account = plane.user_kubeconfig("rights", ACCOUNT, group="system:serviceaccounts")
    team.operator = OperatorProcess(account, tmp_path / "operator.log")
    yield team.operator
    team.operator.kill()


def in_the_way(team: Team) -> list[tuple[str, str]]:
    """Objects of somebody else with the names of an attempt's, in the order in which the operator meets them."""
    pods = {"containers": [{"name": "c", "image": "x"}], "restartPolicy": "Never"}
    strangers: list[tuple[str, str, str, dict[str, Any]]] = [
        ("networking.k8s.io/v1", "NetworkPolicy", "tiny", {"podSelector": {"matchLabels": {"app": "other"}}}),
        ("v1", "Service", "tiny-a1", {"ports": [{"port": 80}]}),
        ("batch/v1", "Job", "tiny-a1", {"suspend": True, "template": {"spec": pods}}),
    ]
    for version, kind, name, spec in strangers:
        obj = {"apiVersion": version, "kind": kind, "metadata": {"name": name}, "spec": spec}
        team.api.create(obj, team.ns)
    return [(kind, name) for _, kind, name, _ in strangers]


CLAIM = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "resources": {"requests": SIZE}}
VOLUMES = {
    "checkpoints": {"claimTemplate": CLAIM},
    "data": {"claimName": "digits"},
    "models": {"claimName": "runs"},
}
NO_PODS = {
    "apiVersion": "v1",
    "kind": "ResourceQuota",
    "metadata": {"name": "small"},
    "spec": {"hard": {"pods": "0"}},
}


def starts_late(team: Team) -> None:
    """get, create and list: what is in the way is looked at, and why pods are missing is read from events."""
    strangers = in_the_way(team)
    team.make_volume("tiny-checkpoints")
    team.api.create(NO_PODS, team.ns)
    team.submit(volumes=VOLUMES, ttlSecondsAfterFinished=1)
    for kind, name in strangers:
        told = f"{kind} {name}"
        wait_for(lambda told=told: told in team.waits_because("NameTaken")["message"], 30, team.operator.tail)
        team.api.delete(kind, team.ns, name, propagationPolicy="Background")
    wait_for(lambda: (team.condition("Running"))["reason"] == "QuotaExceeded", 30, team.operator.tail)
    team.api.delete("ResourceQuota", team.ns, "small")


def is_evicted_by_a_queue(team: Team) -> None:
    """patch: the Job that the queue took back is labelled for the next attempt."""
    team.api.patch("Job", team.ns, "tiny-a1", {"spec": {"suspend": True}})
    team.api.patch("Job", team.ns, "tiny-a1", {"status": {"startTime": None}}, "status")  # as Kueue does
    team.stop_pods(1, committed=20)

    def labelled() -> bool:
        job = team.api.get("Job", team.ns, "tiny-a1") or {}
        return bool(job["spec"]["template"]["metadata"]["labels"][Label.ATTEMPT] == "2")

    def state() -> tuple[object, ...]:
        return team.status.to_wire(), team.pods(1), team.api.get("Job", team.ns, "tiny-a1"), team.operator.tail()

    wait_for(labelled, 30, state)
    team.api.patch("Job", team.ns, "tiny-a1", {"spec": {"suspend": False}})
    team.train(2, step=30, committed=20, resumed=20)


def loses_its_job_but_not_its_pods(team: Team) -> None:
    """delete of pods: nobody else would."""
    team.api.delete("Job", team.ns, "tiny-a1", propagationPolicy="Orphan")
    team.stop_pods(2, committed=30)


def is_stopped_and_goes_on(team: Team) -> None:
    """delete of a Job."""
    team.train(3, step=40, committed=30, resumed=30)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    wait_for(lambda: team.attempt().reason == Reason.SUSPENDED_BY_USER)
    team.stop_pods(3, committed=40)
    team.reaches(Phase.SUSPENDED)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": False}})
    team.train(4, step=50, committed=40, resumed=40)


def test_every_right_is_used_and_nothing_is_denied(
    team: Team, mine: OperatorProcess, plane: ControlPlane, roles: list[Object]
) -> None:
    mine.start(**LEASE)
    starts_late(team)
    team.train(1, step=20, committed=20)
    mine.stop()
    peers = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
    mine.start(METRICS_PEERS=json.dumps(peers), **LEASE)  # so that the policy of the job changes: update
    is_evicted_by_a_queue(team)
    loses_its_job_but_not_its_pods(team)
    is_stopped_and_goes_on(team)
    team.finish(4)
    wait_for(lambda: team.raw() is None, 30, mine.tail)  # the TTL

    made = requests(plane.audit_log, ACCOUNT)
    assert denied(made) == []
    allowed = {right._replace(name="") for right in given(roles)}
    assert allowed - used(made) == CHECKED_AT_ADMISSION, "rights that nothing needs: remove them from the chart"
