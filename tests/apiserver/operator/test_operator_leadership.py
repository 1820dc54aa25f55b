"""Two operators on a real API server, one of which leads: the leader is killed and stopped, and the job goes on."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from distill_api.constants import Phase
from distill_operator.controller.leadership.election import Times
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, wait_for
from tests.support.apiserver.operatorprocess import USER, OperatorProcess
from tests.support.apiserver.team import Team
from tests.support.machine.python import ROOT

LEASE = "test-distill-operator"
RBAC = "rbac.authorization.k8s.io"


class Pair:
    """Two processes that share a Lease in the namespace `default`."""

    def __init__(self, plane: ControlPlane, api: Api, folder: Path) -> None:
        self._api = api
        self.processes = {
            name: OperatorProcess(plane.user_kubeconfig(f"operator-{name}", USER), folder / f"{name}.log")
            for name in ("a", "b")
        }

    def start(self, name: str) -> None:
        self.processes[name].start(LEASE_NAME=LEASE, LEASE_NAMESPACE="default", POD_NAME=name)

    @property
    def holder(self) -> str:
        lease = self._api.get("Lease", "default", LEASE) or {"spec": {}}
        return str(lease["spec"].get("holderIdentity") or "")

    def leads(self, name: str, seconds: float) -> None:
        process = self.processes[name]
        wait_for(
            lambda: self.holder == name and "distill_operator_leads 1.0" in process.metrics(), seconds, process.tail
        )


@pytest.fixture
def pair(plane: ControlPlane, api: Api, operator: OperatorProcess, tmp_path: Path) -> Iterator[Pair]:
    """With the rights that the chart gives for the Lease. The operator of the other tests does not run meanwhile."""
    operator.stop()
    rendered = plane.helm("template", "test", str(ROOT / "charts" / "distill-operator"), "--namespace", "default")
    (role,) = [obj for obj in yaml.safe_load_all(rendered) if obj and obj["kind"] == "Role"]
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "leader"},
        "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role["metadata"]["name"]},
        "subjects": [{"kind": "User", "name": USER, "apiGroup": RBAC}],
    }
    for obj in (role, binding):
        path = f"/apis/{RBAC}/v1/namespaces/default/{obj['kind'].lower()}s"
        api.request("POST", path, obj)
    pair = Pair(plane, api, tmp_path)
    yield pair
    for process in pair.processes.values():
        process.kill()


def test_a_job_goes_on_when_its_operator_is_killed_and_when_it_is_stopped(team: Team, pair: Pair) -> None:
    pair.start("a")
    pair.leads("a", 60)
    pair.start("b")
    team.submit()
    team.reaches(Phase.STARTING)
    assert pair.holder == "a"

    pair.processes["a"].kill()
    pair.leads("b", 60)
    team.train(1, step=30, committed=20)

    pair.start("a")
    assert pair.processes["b"].stop() == 0
    pair.leads("a", 0.7 * Times().lease)  # it was released, or nobody could lead before it expires
    team.finish(1)
    over = team.reaches(Phase.SUCCEEDED)
    assert (over.attempt, over.restarts) == (1, "0/0")
    assert len(team.api.list("Job", team.ns)) == 1
