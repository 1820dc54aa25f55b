"""What `distill apply` says of a change is what the API server does: by field and by the job's state."""

import pytest

from distill_cli.views.changes import changes, overlay
from distill_client import Refused
from tests.client.conftest import Desk
from tests.support.apiserver.api import Object
from tests.support.apiserver.team import manifest

CHANGES: dict[str, Object] = {
    "student": {"student": {"model": "yolo26s.yaml"}},
    "dataset": {"dataset": {"config": "coco.yaml"}},
    "batch": {"training": {"batch": 32}},
    "more epochs": {"training": {"epochs": 200}},
    "fewer epochs": {"training": {"epochs": 50}},
    "lr0": {"training": {"lr0": 0.005}},
    "resource": {"accelerators": {"resource": "example.com/gpu"}},
    "data claim": {"volumes": {"data": {"claimName": "coco"}}},
    "nodes": {"nodes": 1},
    "retention": {"persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"}},
    "image": {"image": "trainer:2"},
    "checkpoint": {"checkpoint": {"keep": 5}},
    "budget": {"recovery": {"maxFailures": 9}},
}
ATTEMPT = {"number": 1, "nodes": 2, "startedAt": "2026-11-28T12:00:00Z", "outcome": "Withdrawn"}
MISMATCHED = ATTEMPT | {"committedStep": 5, "reason": "CheckpointMismatch"}
COMMITTED = {"attempt": 1, "attempts": [ATTEMPT | {"committedStep": 5}], "fullNodes": 2}
STATES: dict[str, tuple[bool, Object]] = {
    "new": (False, {}),
    "new, suspended": (True, {"phase": "Suspended"}),
    "running": (False, {"phase": "Running", "attempt": 1, "attempts": [ATTEMPT], "fullNodes": 2}),
    "running, committed": (False, {"phase": "Running", **COMMITTED}),
    "stopping": (True, {"phase": "Running", **COMMITTED}),
    "suspended, uncommitted": (True, {"phase": "Suspended", "attempt": 1, "attempts": [ATTEMPT], "fullNodes": 2}),
    "suspended, committed": (True, {"phase": "Suspended", **COMMITTED}),
    "mismatched": (True, {"phase": "Suspended", **COMMITTED, "attempts": [MISMATCHED]}),
    "failed": (False, {"phase": "Failed", **COMMITTED}),
}


@pytest.mark.parametrize("elastic", [False, True], ids=["fixed", "elastic"])
@pytest.mark.parametrize("state", STATES)
def test_the_effect_of_a_change_is_as_told(desk: Desk, state: str, elastic: bool) -> None:
    suspend, status = STATES[state]
    more: Object = {"elastic": {"minNodes": 1}} if elastic else {}
    client = desk.client
    client.create(manifest(suspend=suspend, **more))
    desk.tell("tiny", {"observedGeneration": 1, **status})
    stored = client.get("tiny")
    wrong = {}
    for name, change in CHANGES.items():
        told = [c for c in changes(stored, overlay(stored.raw["spec"], change)) if c.refused]
        try:
            client.patch("tiny", change, dry_run=True)
            refused = ""
        except Refused as error:
            refused = str(error)
        if bool(told) != bool(refused):
            wrong[name] = (told, refused)
    assert wrong == {}
