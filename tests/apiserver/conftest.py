"""A real control plane, two pretended nodes and the operator as a process; a namespace for each test."""

import itertools
from collections.abc import Callable, Iterator

import pytest
import yaml

from testcluster import ControlPlane
from tests.apiserver.api import Api, wait_for
from tests.apiserver.nodes import Nodes, rank0
from tests.apiserver.operatorprocess import OperatorProcess
from tests.apiserver.team import Team
from tests.support.machine.python import ROOT

OPERATOR = "distill-operator-under-test"


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane.start(tmp_path_factory.mktemp("plane") / "control") as plane:
        yield plane


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Api:
    """The API as an administrator, with the CRD established."""
    api = Api(plane.kubeconfig)
    crd = yaml.safe_load((ROOT / "crds" / "distilljob.yaml").read_text())
    name = api.create(crd)["metadata"]["name"]

    def established() -> bool:
        status = (api.get("CustomResourceDefinition", "", name) or {}).get("status") or {}
        return any(c["type"] == "Established" and c["status"] == "True" for c in status.get("conditions") or ())

    wait_for(established)
    wait_for(lambda: _answers(api))
    return api


def _answers(api: Api) -> bool:
    try:
        return api.list("DistillJob", "default") == []
    except Exception as error:
        if "initializing" in str(error) or "404" in str(error):
            return False
        raise


@pytest.fixture(scope="session")
def nodes(api: Api) -> Iterator[Nodes]:
    with Nodes(api, ("node0", "node1")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def _operator(plane: ControlPlane, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """As a user who has exactly the rights of the chart's ClusterRole."""
    chart = plane.helm("template", "test", str(ROOT / "charts" / "distill-operator"))
    objects = [obj for obj in yaml.safe_load_all(chart) if obj and obj["kind"] == "ClusterRole"]
    (role,) = [obj for obj in objects if obj["metadata"]["name"] == "test-distill-operator"]
    api.create(role)
    api.create(
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": OPERATOR},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": role["metadata"]["name"],
            },
            "subjects": [{"kind": "User", "name": OPERATOR, "apiGroup": "rbac.authorization.k8s.io"}],
        }
    )
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    operator = OperatorProcess(plane.user_kubeconfig("operator", OPERATOR), log)
    yield operator
    operator.kill()


@pytest.fixture
def operator(_operator: OperatorProcess) -> OperatorProcess:
    """The operator, started again if the test before has killed it."""
    if not _operator.running:
        _operator.start()
    return _operator


_numbers = itertools.count(2)


@pytest.fixture
def make_team(api: Api, operator: OperatorProcess, nodes: Nodes) -> Iterator[Callable[..., Team]]:
    """Make the test's namespace; afterwards its nodes are given back."""
    del nodes  # the scheduler needs them, the test does not
    number = next(_numbers)
    with rank0(number) as rank:
        team = Team(api, f"team-{number}", operator, rank)

        def make(labels: dict[str, str] | None = None) -> Team:
            team.prepare(labels)
            return team

        yield make
        api.delete("DistillJob", team.ns, "tiny")
        wait_for(lambda: _cleared(team), 30)


def _cleared(team: Team) -> bool:
    """Remove Jobs and pods until none is left; the garbage collector knows a new CRD only after up to 30 s."""
    for job in team.api.list("Job", team.ns):
        team.api.delete("Job", team.ns, job["metadata"]["name"], propagationPolicy="Background")
    for pod in team.api.list("Pod", team.ns):
        team.api.delete("Pod", team.ns, pod["metadata"]["name"], gracePeriodSeconds=0)
    return not any(team.api.list(kind, team.ns) for kind in ("Job", "Pod"))


@pytest.fixture
def team(make_team: Callable[..., Team]) -> Team:
    return make_team()
