"""A short `make fault-api`: crashes at some writes, each kind of wrong answer once, and a few changes of live jobs."""

import random
from collections.abc import Iterator

import pytest

from benchmarks.faultapi import disturbed, mutations
from benchmarks.faultapi.disturbed import Row, Story
from benchmarks.faultapi.faults import HANGS, KINDS
from benchmarks.faultapi.life import End
from benchmarks.faultapi.testbed import Lane, PatientApi, lane
from testcluster import ControlPlane
from tests.support.apiserver.api import Api
from tests.support.apiserver.nodes import Nodes
from tests.support.apiserver.operatorprocess import OperatorProcess

SEED = 7
CRASHES = 2
MUTATIONS = 20


@pytest.fixture(scope="module")
def faulted(
    plane: ControlPlane, api: Api, nodes: Nodes, _operator: OperatorProcess, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Lane]:
    """A lane; the operator of the other tests does not run meanwhile."""
    del api, nodes  # the CRD and the nodes are there
    _operator.kill()
    folder = tmp_path_factory.mktemp("faults")
    with lane(PatientApi(plane.kubeconfig), Api(_operator.kubeconfig), 0, folder) as made:
        yield made


@pytest.fixture(scope="module")
def whole(faulted: Lane) -> tuple[End, list[str]]:
    """The end of an undisturbed life, and its writes."""
    return disturbed.undisturbed(faulted)


def judged(row: Row) -> Row:
    assert not row.problems, f"{row.name}: {row.problems}"
    return row


def test_killed_at_a_write_the_job_ends_as_if_undisturbed(faulted: Lane, whole: tuple[End, list[str]]) -> None:
    expected, writes = whole
    for story in random.Random(SEED).sample(disturbed.crashes(writes), CRASHES):
        row = judged(disturbed.run(faulted, story, expected))
        assert row.faults["killed"] == 1, row.name


def test_each_kind_of_wrong_answer_changes_no_jobs_end(faulted: Lane, whole: tuple[End, list[str]]) -> None:
    kinds = tuple(kind for kind in KINDS if kind not in HANGS)  # 20 s each
    story = Story("answers", "each once", lambda lane: disturbed.chaos(SEED, kinds, lane, rate=0.5, once=True))
    row = judged(disturbed.run(faulted, story, whole[0]))
    assert row.faults == dict.fromkeys(kinds, 1)


def test_changes_of_live_jobs_are_followed_or_refused(faulted: Lane) -> None:
    rows = [judged(row) for row in mutations.run(faulted, SEED, MUTATIONS, lambda _: None)]
    done = sum(row.faults["followed"] + row.faults["refused"] for row in rows)
    assert done == MUTATIONS
