"""Which corrections of a suspended job the API server admits, by the status that the operator has stored."""

import itertools
from typing import Any

import pytest

from distill_api.spec.rules.corrections import DEFINING, JOB, LATER, STARTED
from tests.support.apiserver.api import Api, Object, Refused
from tests.support.apiserver.operatorprocess import OperatorProcess
from tests.support.apiserver.team import manifest

CORRECTIONS: dict[str, Object] = {
    "student": {"model": "yolo26s.yaml"},
    "teacher": {"model": "other.pt"},
    "dataset": {"config": "coco.yaml"},
    "recipe": "auto",
    "distillation": {"weight": 3.0},
    "training": {"batch": 32},
    "accelerators": {"perNode": 4},
    "device": "auto",
    "volumes": {"data": {"claimName": "coco"}},
}
CHANGED_LATER = {
    "epochs": 200, "lr0": 0.005, "lrf": 0.1, "cos_lr": True, "amp": "bf16", "compile": True, "patience": 5,
    "val_period": 5, "plots": False, "workers": 2,
}  # fmt: skip
NUMBERS = itertools.count()


def attempt(**fields: Any) -> Object:
    return {"number": 1, "nodes": 2, "startedAt": "2026-11-28T12:00:00Z", "outcome": "Withdrawn", **fields}


NEVER = {"phase": "Suspended", "attempt": 0}
UNCOMMITTED = {"phase": "Suspended", "attempt": 1, "attempts": [attempt(committedStep=0)]}
COMMITTED = {"phase": "Suspended", "attempt": 1, "attempts": [attempt(committedStep=5)]}
PROGRESSED = {"phase": "Suspended", "attempt": 1, "attempts": [attempt()], "progress": {"committedStep": 5}}
MISMATCHED = {**COMMITTED, "attempts": [attempt(committedStep=5, reason="CheckpointMismatch")]}
STOPPING = {**UNCOMMITTED, "phase": "Running"}
FAILED = {**NEVER, "phase": "Failed"}


@pytest.fixture(scope="module", autouse=True)
def no_operator(_operator: OperatorProcess) -> None:
    """It would write a status of its own."""
    _operator.kill()


def stored(api: Api, status: Object | None, **spec: Any) -> str:
    """A job that no operator knows, with this status."""
    name = f"corrected-{next(NUMBERS)}"
    api.create(manifest(name, **{"suspend": True, **spec}), "default")
    if status is not None:
        api.patch("DistillJob", "default", name, {"status": {"observedGeneration": 1, **status}}, "status")
    return name


def correct(api: Api, name: str, spec: Object) -> str | None:
    """Why the API server refuses the change; None if it admits it."""
    path = api.path("DistillJob", "default", name)
    try:
        api.request("PATCH", path, {"spec": spec}, "application/merge-patch+json", dryRun="All")
    except Refused as refused:
        return refused.message
    return None


@pytest.fixture(scope="module", params=["never seen", "never started", "uncommitted", "mismatched"])
def free(api: Api, request: pytest.FixtureRequest) -> str:
    states = {"never started": NEVER, "uncommitted": UNCOMMITTED, "mismatched": MISMATCHED}
    return stored(api, states.get(request.param))


@pytest.fixture(scope="module", params=["attempt", "progress"])
def committed(api: Api, request: pytest.FixtureRequest) -> str:
    return stored(api, COMMITTED if request.param == "attempt" else PROGRESSED)


@pytest.mark.parametrize("field", DEFINING)
def test_before_the_first_commit_a_suspended_job_is_correctable(api: Api, free: str, field: str) -> None:
    assert correct(api, free, {field: CORRECTIONS[field]}) is None


@pytest.mark.parametrize("field", DEFINING)
def test_after_a_commit_what_gives_it_its_meaning_stays(api: Api, committed: str, field: str) -> None:
    assert f"{field} defines the run and cannot be changed" in (
        correct(api, committed, {field: CORRECTIONS[field]}) or ""
    )


@pytest.mark.parametrize("field", STARTED)
def test_what_the_first_attempt_fixes_can_be_corrected_before_it(api: Api, field: str) -> None:
    retained = {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}}
    check = {"checkOnly": True, "nodes": 1, "accelerators": {"perNode": 0, "processesPerNode": None}}
    change = {"nodes": {"nodes": 1}, "checkOnly": check, **{name: {name: value} for name, value in retained.items()}}[
        field
    ]
    for status in (None, NEVER):
        assert correct(api, stored(api, status), change) is None
        assert "only while suspend is true" in (correct(api, stored(api, status, suspend=False), change) or "")
    for status in (UNCOMMITTED, COMMITTED, STOPPING, FAILED):
        assert f"{field} cannot be changed" in (correct(api, stored(api, status), change) or "")


@pytest.mark.parametrize("field", LATER)
def test_after_a_commit_some_fields_of_training_may_change(api: Api, committed: str, field: str) -> None:
    assert correct(api, committed, {"training": {field: CHANGED_LATER[field]}}) is None


@pytest.mark.parametrize("status", [STOPPING, FAILED], ids=["it still stops", "it is over"])
def test_a_job_that_is_not_at_rest_cannot_be_corrected(api: Api, status: Object) -> None:
    name = stored(api, status)
    for field in DEFINING:
        assert "cannot be changed" in (correct(api, name, {field: CORRECTIONS[field]}) or ""), field


def test_epochs_may_only_grow_once_steps_are_committed(api: Api, committed: str) -> None:
    assert "epochs (to more)" in (correct(api, committed, {"training": {"epochs": 50}}) or "")
    assert "cannot be changed" in (correct(api, committed, {"training": {"epochs": 200, "seed": 1}}) or "")


def test_a_renamed_resource_is_no_other_run(api: Api, committed: str) -> None:
    assert correct(api, committed, {"accelerators": {"resource": "nvidia.com/mig-1g.10gb"}}) is None


def test_only_a_suspended_job_can_be_corrected(api: Api) -> None:
    name = stored(api, UNCOMMITTED, suspend=False)
    assert "set suspend: true" in (correct(api, name, {"training": {"batch": 32}}) or "")
    assert correct(api, name, {"suspend": True, "training": {"batch": 32}}) is not None, "it may still run"


def test_a_job_may_be_corrected_and_resumed_in_one_change(api: Api, free: str) -> None:
    assert correct(api, free, {"suspend": False, "training": {"batch": 32}}) is None


def test_a_claim_that_was_created_is_not_made_again(api: Api) -> None:
    def template(size: str) -> Object:
        return {"checkpoints": {"claimName": None, "claimTemplate": {"resources": {"requests": {"storage": size}}}}}

    fresh, begun = (stored(api, status) for status in (NEVER, UNCOMMITTED))
    for name in (fresh, begun):
        api.patch("DistillJob", "default", name, {"spec": {"volumes": template("1Gi")}})
    assert correct(api, fresh, {"volumes": template("9Gi")}) is None
    assert "already created from a claimTemplate" in (correct(api, begun, {"volumes": template("9Gi")}) or "")
    assert correct(api, begun, {"volumes": {"checkpoints": {"claimTemplate": None, "claimName": "mine"}}}) is None


def test_a_corrected_job_is_still_checked_as_a_whole(api: Api, free: str) -> None:
    assert "must be divisible" in (correct(api, free, {"training": {"batch": 18}}) or "")


def test_a_corrected_batch_is_cut_for_the_nodes_of_the_first_attempt(api: Api) -> None:
    lowered = {"nodes": 1, "elastic": {"minNodes": 1}, "training": {"batch": 16}, "accelerators": {"perNode": 1}}
    name = stored(api, {**UNCOMMITTED, "fullNodes": 2}, **lowered)
    assert correct(api, name, {"training": {"batch": 18}}) is None
    assert "status.fullNodes" in (correct(api, name, {"training": {"batch": 17}}) or "")


def test_a_job_that_nobody_has_seen_says_so_and_has_defaults(api: Api) -> None:
    fresh = api.get("DistillJob", "default", stored(api, None)) or {}
    assert (fresh["status"]["observedGeneration"], fresh["status"]["phase"]) == (-1, "Pending")


def test_every_rule_and_every_field_is_tried() -> None:
    assert set(CORRECTIONS) == set(DEFINING)
    assert set(CHANGED_LATER) == set(LATER)
    assert len(JOB) == len(DEFINING) + len(STARTED) + 3
