"""A real control plane, two pretended nodes and the operator as a process; a namespace for each test."""

import itertools
from collections.abc import Callable, Iterator

import pytest

from testcluster import ControlPlane
from tests.support.apiserver.api import Api, install_crd, wait_for
from tests.support.apiserver.nodes import Nodes, rank0
from tests.support.apiserver.operatorprocess import USER, OperatorProcess, chart_user
from tests.support.apiserver.team import Team
from tests.support.audit import denied, requests


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """It also asks for the right to block the deletion of owners, as OpenShift does."""
    folder, plugins = tmp_path_factory.mktemp("plane") / "control", ("OwnerReferencesPermissionEnforcement",)
    with ControlPlane.start(folder, audit=True, admission=plugins) as plane:
        yield plane


@pytest.fixture(scope="session")
def api(plane: ControlPlane) -> Api:
    """The API as an administrator, with the CRD established."""
    api = Api(plane.kubeconfig)
    install_crd(api)
    return api


@pytest.fixture(scope="session")
def nodes(api: Api) -> Iterator[Nodes]:
    with Nodes(api, ("node0", "node1")) as nodes:
        yield nodes


@pytest.fixture(scope="session")
def _operator(plane: ControlPlane, api: Api, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    """As a user who has exactly the rights of the chart's ClusterRole. At the end, none of its requests was denied."""
    log = tmp_path_factory.mktemp("operator") / "operator.log"
    operator = OperatorProcess(chart_user(plane, api), log)
    yield operator
    operator.kill()
    assert denied(requests(plane.audit_log, USER)) == []


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
        wait_for(lambda: cleared(team), 30)


def cleared(team: Team) -> bool:
    """Remove Jobs and pods until none is left; the garbage collector knows a new CRD only after up to 30 s."""
    for job in team.api.list("Job", team.ns):
        team.api.delete("Job", team.ns, job["metadata"]["name"], propagationPolicy="Background")
    for pod in team.api.list("Pod", team.ns):
        team.api.delete("Pod", team.ns, pod["metadata"]["name"], gracePeriodSeconds=0)
    return not any(team.api.list(kind, team.ns) for kind in ("Job", "Pod"))


@pytest.fixture
def team(make_team: Callable[..., Team]) -> Team:
    return make_team()
