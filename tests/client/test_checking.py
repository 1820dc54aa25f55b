"""A pod that checks a job before it is created: `validate --cluster`, `apply --check` and the client's `check`."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_api.constants import JOB_NAME_LENGTH
from distill_api.job import parse_job
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_client import Refused, checking
from distill_client.checking import check_of
from testcluster import ControlPlane
from tests.client.conftest import Desk, Ended
from tests.support.apiserver.api import Object, wait_for
from tests.support.apiserver.team import Team, manifest

FOUND = "yolo26n.yaml (2.6 M parameters) can learn from teacher.pt (10.0 M parameters)"


def test_a_check_is_a_small_job_of_the_same_files_in_no_queue() -> None:
    large = manifest(
        elastic={"minNodes": 1},
        resources={"requests": {"cpu": 64}},
        suspend=True,
        training={"epochs": 3, "workers": 16},
        image="team/trainer:1",
        scheduling={"nodeSelector": {"zone": "a"}},
        template={
            "metadata": {"annotations": {"team": "vision"}},
            "spec": {
                "initContainers": [{"name": "fetch", "image": "aws"}],
                "containers": [{"name": "trainer", "resources": {"limits": {"rdma/ib": 8}}, "env": []}],
            },
        },
    )
    large["metadata"] |= {
        "namespace": "team",
        "labels": {"kueue.x-k8s.io/queue-name": "gpus", "team": "vision"},
        "annotations": {"argocd.argoproj.io/tracking-id": "jobs"},
    }
    made = check_of({**large, "spec": {key: value for key, value in large["spec"].items() if key != "resources"}}, "a1")
    assert made == check_of(large, "a1")
    assert made["metadata"] == {"name": "tiny-check-a1", "namespace": "team", "labels": {"team": "vision"}}
    spec = parse_job(made).spec
    assert (spec.check_only, spec.world_size, spec.uses_cuda, spec.suspend) == (True, 1, False, False)
    assert (spec.elastic, spec.resources, spec.training.workers, spec.training.epochs) == (None, None, 0, 3)
    assert spec.recovery.max_failures == 0
    assert spec.ttl_seconds_after_finished
    for same in ("student", "teacher", "dataset", "volumes", "image", "scheduling"):
        assert made["spec"][same] == large["spec"][same]
    assert made["spec"]["template"]["spec"] == {
        "initContainers": [{"name": "fetch", "image": "aws"}],
        "containers": [{"name": "trainer", "env": []}],
    }
    assert large["spec"]["template"]["spec"]["containers"][0]["resources"], "the job itself is as it was"


@pytest.mark.parametrize("place", ["resources", "template"])
def test_limits_of_the_job_hold_and_little_is_requested(place: str) -> None:
    given = {"requests": {"cpu": 64, "memory": "256Gi"}, "limits": {"cpu": "250m", "memory": "256Gi", "rdma/ib": 8}}
    containers = [{"name": "trainer", "resources": given}]
    spec = {"resources": given} if place == "resources" else {"template": {"spec": {"containers": containers}}}
    made = check_of(manifest(**spec), "a1")
    parse_job(made)
    limits = {"cpu": "250m", "memory": "256Gi"}
    assert made["spec"]["resources"] == {"requests": {"cpu": "250m", "memory": "2Gi"}, "limits": limits}


def test_a_long_name_is_cut_for_the_check() -> None:
    name = check_of(manifest("a" * (JOB_NAME_LENGTH - 14) + "-" + "b" * 13), "abcdef")["metadata"]["name"]
    assert name == "a" * (JOB_NAME_LENGTH - 14) + "-check-abcdef"
    assert len(name) <= JOB_NAME_LENGTH


@pytest.fixture
def desk_of_team(plane: ControlPlane, team: Team, tmp_path: Path) -> Desk:
    return Desk(plane.kubeconfig, team.ns, team.api, tmp_path)


def checks(team: Team) -> list[Object]:
    """The checks that the namespace has."""
    return [job for job in team.api.list("DistillJob", team.ns) if job["spec"].get("checkOnly")]


def end_check(team: Team, code: int, report: TerminationMessage) -> Callable[[], None]:
    """Run the pod of the next check to this end."""

    def pod() -> Object | None:
        pods = team.api.list("Pod", team.ns, labelSelector="distilljob.dev/attempt=1")
        mine = [pod for pod in pods if "-check-" in pod["metadata"]["name"] and pod["spec"].get("nodeName")]
        return mine[0] if mine else None

    def run() -> None:
        found = wait_for(pod, 60, lambda: (checks(team), team.operator.tail()))
        team.kubelet.run(found, "127.0.0.1")
        team.kubelet.end(found, code, report)

    thread = threading.Thread(target=run)
    thread.start()
    return thread.join


def checked(team: Team, desk: Desk, *command: str, reason: Reason, message: str, code: int = 0) -> Ended:
    outcome = "done" if reason == Reason.CHECKED else "permanent" if code == 78 else "failed"
    report = TerminationMessage.model_validate(
        {"outcome": outcome, "reason": reason, "message": message, "attempt": 1, "rank": 0}
    )
    join = end_check(team, code, report)
    ended = desk.distill(*command)
    join()
    assert wait_for(lambda: not checks(team), 30), "the check is deleted"
    return ended


def test_what_the_pod_finds_is_told_and_the_check_is_deleted(team: Team, desk_of_team: Desk) -> None:
    file = desk_of_team.file()
    ended = checked(team, desk_of_team, "validate", file, "--cluster", reason=Reason.CHECKED, message=FOUND)
    assert ended.code == 0, ended
    assert "checking volumes, models and data set with a pod" in ended.output
    assert "  PodsStarting: " in ended.output
    assert ended.output.endswith(f"{file}: {FOUND}\n")
    assert team.api.list("DistillJob", team.ns) == []


def test_a_mistake_ends_with_78_its_reason_and_its_remedy(team: Team, desk_of_team: Desk) -> None:
    wrong = {"reason": Reason.PAIR_MISMATCH, "message": "class 3 is named 'three' and 'tree'", "code": 78}
    ended = checked(team, desk_of_team, "apply", desk_of_team.file(), "--check", **wrong)
    assert ended.code == 78
    assert "PairMismatch: class 3 is named 'three' and 'tree'" in ended.errors
    assert "  try: Use models of one task and data set" in ended.errors
    assert team.api.list("DistillJob", team.ns) == [], "nothing was applied"


def test_a_failure_that_may_pass_is_not_tried_again(team: Team, desk_of_team: Desk) -> None:
    short = {"reason": Reason.OUT_OF_MEMORY, "message": "no memory", "code": 1}
    ended = checked(team, desk_of_team, "validate", desk_of_team.file(), "--cluster", **short)
    assert ended.code == 8
    assert "no memory" in ended.errors


def test_apply_goes_on_after_a_check_that_passes(team: Team, desk_of_team: Desk) -> None:
    file, message = desk_of_team.file(), f"{FOUND}; warning: no label of val has the class three"
    ended = checked(team, desk_of_team, "apply", file, "--check", reason=Reason.CHECKED, message=message)
    assert ended.output.splitlines()[-2:] == [f"{file}: {FOUND}", "tiny created"], ended
    assert ended.errors == f"warning: {file}: no label of val has the class three\n"
    assert [job["metadata"]["name"] for job in team.api.list("DistillJob", team.ns)] == ["tiny"]


def test_a_missing_claim_is_told_at_once(team: Team, desk_of_team: Desk) -> None:
    claim = {"claimName": "nowhere"}
    file = desk_of_team.file(volumes={"checkpoints": {"claimName": "runs"}, "data": claim, "models": claim})
    ended = desk_of_team.distill("validate", file, "--cluster")
    assert ended.code == 78
    assert "ClaimNotFound" in ended.errors
    assert "nowhere" in ended.errors
    assert wait_for(lambda: not checks(team), 30)


@pytest.mark.parametrize("seconds", ["1", "600"])
def test_a_check_that_no_operator_sees_ends_soon_and_is_deleted(
    desk: Desk, seconds: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "UNSEEN_SECONDS", 1.0)
    ended = desk.distill("validate", desk.file(), "--cluster", "--timeout", seconds)
    assert ended.code == 7
    assert "has not ended after 1 s: no operator has seen it" in ended.errors
    assert "distill doctor" in ended.errors
    assert desk.api.list("DistillJob", desk.namespace) == []


def test_without_the_pod_nothing_is_created(desk: Desk) -> None:
    said = desk.ok("validate", desk.file(), "--cluster", "--no-pod")
    assert "is valid, and" in said
    assert "checking" not in said
    assert desk.api.list("DistillJob", desk.namespace) == []


def test_a_field_that_the_cluster_does_not_know_is_refused_and_not_dropped(desk: Desk) -> None:
    """An older CRD would make a training of a check without checkOnly."""
    document = manifest()
    document["metadata"]["lables"] = {"team": "vision"}
    with pytest.raises(Refused, match="lables"):
        desk.client.create(document)
