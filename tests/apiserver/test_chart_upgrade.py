"""A job in mid-run while helm upgrades the last released chart to today's and rolls back: the run is not touched.

The job is as the released operator left it: its golden status and the golden objects that it made. A program of that
version is not kept, so today's operator, with the rights and the settings of the release, stands in for it after the
rollback. Kubelets and rank 0 are simulated.
"""

import itertools
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import Phase
from distill_api.metrics import OperatorMetric
from testcluster import ControlPlane
from tests.apiserver.conftest import cleared
from tests.support.apiserver.api import Api, Object, answers, make_namespace, wait_for
from tests.support.apiserver.nodes import Nodes, rank0
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.apiserver.team import Team
from tests.support.audit import denied, requests
from tests.support.machine.python import ROOT
from tests.support.operator import golden

CHART = ROOT / "charts/distill-operator"
RELEASED = golden.newest()
CRD = "distilljobs.distilljob.dev"
ACCOUNT = f"system:serviceaccount:{golden.NAMESPACE}:{golden.RELEASE}-distill-operator"
ATTEMPT = 2


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane.start(tmp_path_factory.mktemp("upgrade") / "plane", audit=True) as plane:
        yield plane


@pytest.fixture(scope="module")
def _api(plane: ControlPlane) -> Iterator[Api]:
    api = Api(plane.kubeconfig)
    make_namespace(api, golden.NAMESPACE)
    with Nodes(api, ("node0", "node1")):
        yield api


class Release:
    """The chart's release in the cluster: installed from the golden files, then upgraded and rolled back by helm."""

    def __init__(self, plane: ControlPlane, folder: Path, crd_by_hand: bool) -> None:
        self._plane, self._folder, self._by_hand = plane, folder, crd_by_hand

    def install_released(self) -> None:
        """From a chart whose objects are exactly those that the released one makes."""
        chart = self._folder / "released"
        (chart / "templates").mkdir(parents=True)
        about = {"apiVersion": "v2", "name": "distill-operator", "version": RELEASED.name}
        (chart / "Chart.yaml").write_text(yaml.safe_dump(about))
        objects = golden.installed(RELEASED)
        if self._by_hand:
            self._apply(RELEASED / "crd.yaml")
        else:
            crd = yaml.safe_load((RELEASED / "crd.yaml").read_text())
            crd["metadata"].setdefault("annotations", {})["helm.sh/resource-policy"] = "keep"
            objects.append(crd)
        (chart / "objects.yaml").write_text(yaml.safe_dump_all(objects))
        (chart / "templates" / "objects.yaml").write_text('{{ .Files.Get "objects.yaml" }}\n')
        self._helm("install", golden.RELEASE, str(chart))
        self._plane.kubectl("wait", "--for=condition=Established", f"crd/{CRD}", "--timeout=30s")

    def upgrade(self) -> None:
        """To today's chart; where the CRD is managed by hand it comes first, as docs/operator.md says."""
        if self._by_hand:
            self._apply(ROOT / "crds/distilljob.yaml")
        self._helm("upgrade", golden.RELEASE, str(CHART), *(["--set", "crds.install=false"] if self._by_hand else []))

    def rollback(self) -> None:
        self._helm("rollback", golden.RELEASE, "1")
        if self._by_hand:
            self._apply(RELEASED / "crd.yaml")

    def uninstall(self) -> None:
        self._helm("uninstall", golden.RELEASE, "--ignore-not-found", "--wait")
        self._plane.kubectl("delete", "crd", CRD, "--ignore-not-found", "--timeout=60s")

    def settings(self) -> dict[str, str]:
        """The environment that the Deployment now gives the operator."""
        name = f"{golden.RELEASE}-distill-operator"
        deployment = json.loads(self._plane.kubectl("get", "deploy", name, "-n", golden.NAMESPACE, "-o", "json"))
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        return {e["name"]: "operator-1" if "valueFrom" in e else e.get("value", "") for e in container["env"]}

    def _apply(self, crd: Path) -> None:
        self._plane.kubectl("apply", "--server-side", "-f", str(crd))

    def _helm(self, *arguments: str) -> None:
        self._plane.helm(*arguments, "--namespace", golden.NAMESPACE)


@pytest.fixture(params=[False, True], ids=["crd-of-the-chart", "crd-by-hand"])
def release(plane: ControlPlane, _api: Api, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Release]:
    release = Release(plane, tmp_path, request.param)
    yield release
    release.uninstall()


_numbers = itertools.count(1)


@pytest.fixture
def team(plane: ControlPlane, _api: Api, release: Release, tmp_path: Path) -> Iterator[Team]:
    """A namespace in a cluster with the released chart, and an operator that does not run yet."""
    release.install_released()
    wait_for(lambda: answers(_api))
    account = plane.user_kubeconfig("operator", ACCOUNT, group="system:serviceaccounts")
    operator = OperatorProcess(account, tmp_path / "operator.log")
    with rank0(250) as rank:
        team = Team(_api, f"team-{next(_numbers)}", operator, rank)
        team.prepare()
        yield team
        operator.kill()
    _api.delete("DistillJob", team.ns, "tiny")
    wait_for(lambda: cleared(team), 30)


def as_of_now(running: Object) -> Object:
    """The object with its times moved, so that its last progress has just been made."""
    seen = datetime.fromisoformat(running["status"]["progress"]["updatedAt"])
    later = datetime.now(UTC) - seen - timedelta(seconds=1)

    def moved(found: re.Match[str]) -> str:
        return (datetime.fromisoformat(found[0]) + later).strftime("%Y-%m-%dT%H:%M:%SZ")

    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", moved, json.dumps(running))
    return dict(json.loads(text))


def put_in_mid_run(team: Team) -> None:
    """The golden job with its objects, whose pods run."""
    job = as_of_now(yaml.safe_load((RELEASED / "running.yaml").read_text()))
    status = job.pop("status")
    old_uid = job["metadata"]["uid"]
    job["metadata"] = {"name": "tiny"}
    uid = team.api.create(job, team.ns)["metadata"]["uid"]
    made: dict[str, Any] = {}
    for child in golden.children(RELEASED):
        child = json.loads(json.dumps(child).replace(old_uid, uid))
        child["metadata"]["namespace"] = team.ns
        made[child["kind"]] = team.api.create(child, team.ns)
    team.make_volume("tiny-checkpoints")
    status["attempts"][-1]["jobUid"] = made["Job"]["metadata"]["uid"]
    team.api.patch("DistillJob", team.ns, "tiny", {"status": status}, "status")
    team.run_gang(ATTEMPT)


def run_of(team: Team) -> Object:
    """What a run consists of, and what must not change while it goes on."""
    objects = {kind: team.api.list(kind, team.ns) for kind in ("DistillJob", "Job", "Pod", "Service", "NetworkPolicy")}
    status = team.status
    metadata = [obj["metadata"] for found in objects.values() for obj in found]
    return {
        "uids": sorted(m["uid"] for m in metadata),
        "deleting": [m["name"] for m in metadata if "deletionTimestamp" in m],
        "generations": sorted((m["uid"], m["generation"]) for m in metadata if "generation" in m),
        "attempt": (status.attempt, status.restarts, status.failed_starts, status.phase),
        "ended": [attempt.to_wire() for attempt in status.attempts[:-1]],
        "open": (status.attempts[-1].job_uid, status.attempts[-1].resumed_from_step, status.attempts[-1].lost_steps),
        "attempts made": team.events().count("AttemptCreated"),
    }


def trains_on(team: Team, release: Release, step: int) -> None:
    """An operator with the settings that the release gives it now reports a new step, and none of its passes fails."""
    team.operator.start(**release.settings())
    team.say(ATTEMPT, step, committed=step - 1, resumed=6)
    wait_for(
        lambda: team.status.attempts[-1].step == step,
        60,
        lambda: (team.status.to_wire(), team.rank0.asked, team.operator.tail()),
    )
    assert f"{OperatorMetric.PASS_ERRORS} 0.0" in team.operator.metrics()


def crd_matches(team: Team) -> bool:
    return f"{OperatorMetric.CRD_MATCHES} 1.0" in team.operator.metrics()


def test_upgrade_and_rollback_leave_a_job_in_mid_run_alone(plane: ControlPlane, release: Release, team: Team) -> None:
    put_in_mid_run(team)
    before, earlier = run_of(team), len(requests(plane.audit_log, ACCOUNT))

    release.upgrade()
    wait_for(lambda: answers(team.api))
    assert run_of(team) == before
    trains_on(team, release, step=20)
    assert crd_matches(team)
    assert run_of(team) == before
    assert denied(requests(plane.audit_log, ACCOUNT)[earlier:]) == []

    release.rollback()
    wait_for(lambda: answers(team.api))
    assert team.operator.stop() == 0, team.operator.tail()
    trains_on(team, release, step=30)
    assert not crd_matches(team)
    assert run_of(team) == before

    team.finish(ATTEMPT)
    over = team.reaches(Phase.SUCCEEDED)
    assert (over.attempt, over.restarts) == (ATTEMPT, "1/0")
