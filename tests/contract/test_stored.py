"""Objects that another version has stored are read, and what this version does not know is written back."""

import copy
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from distill_api.constants import Outcome, Phase
from distill_api.generate.crd import crd, schema_hash
from distill_api.job import DistillJob, InvalidJob, parse_job, read_stored
from distill_api.reading.unknown import unknown_fields, with_unknown
from distill_api.reasons import Reason
from distill_api.status import LIST_KEYS, DistillJobStatus
from tests.support.operator.golden import GOLDEN, schema_of, stored_objects
from tests.support.operator.skew import newer

OBJECTS = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in stored_objects()]
CRDS = [pytest.param(path, id=path.parent.name) for path in sorted(GOLDEN.glob("*/crd.yaml"))]


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def fields(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, sub in schema.get("properties", {}).items():
        yield from fields(sub, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


@pytest.mark.parametrize("path", OBJECTS)
def test_an_object_of_a_released_version_is_read_without_loss(path: Path) -> None:
    stored = read(path)
    job = read_stored(stored)
    assert unknown_fields({"spec": stored["spec"], "status": stored["status"]}, DistillJob) == {}
    written = {"spec": job.spec.to_wire(), "status": job.status.to_wire()}
    assert contains(written, {"spec": stored["spec"], "status": stored["status"]})


def contains(whole: Any, part: Any) -> bool:
    if isinstance(part, dict):
        return all(name in whole and contains(whole[name], value) for name, value in part.items())
    if isinstance(part, list):
        return len(whole) == len(part) and all(map(contains, whole, part))
    return bool(whole == part)


@pytest.mark.parametrize("path", CRDS)
def test_no_field_of_a_released_version_has_another_type_or_default(path: Path) -> None:
    """A trainer gets no field that has its default, so a default must mean the same in all versions."""
    today = dict(fields(schema_of(crd())))
    for place, then in fields(schema_of(read(path))):
        now = today[place]
        assert now.get("type") == then.get("type"), place
        if "properties" not in then:
            assert now.get("default") == then.get("default"), place
        if "properties" in then:
            new = set(now.get("required", ())) - set(then.get("required", ()))
            assert not new, f"{place} requires {new}, which stored objects lack"


@pytest.mark.parametrize("path", OBJECTS)
def test_a_newer_object_is_read_and_written_back_without_loss(path: Path) -> None:
    stored = newer(read(path), schema_of(crd()))
    added = unknown_fields({"spec": stored["spec"], "status": stored["status"]}, DistillJob)
    assert ("spec", "training", "newField") in added
    assert ("status", "attempts", 0, "newField") in added
    status = read_stored(stored).status
    assert contains(with_unknown(status.to_wire(), stored["status"], DistillJobStatus, LIST_KEYS), stored["status"])


def test_unknown_fields_go_with_the_element_that_they_belong_to() -> None:
    stored = {"attempts": [{"number": n, "new": n} for n in (1, 2)], "waiting": {"reason": "X", "new": 1}, "new": {}}
    written = with_unknown({"attempts": [{"number": 2}, {"number": 3}]}, stored, DistillJobStatus, LIST_KEYS)
    assert written == {"attempts": [{"number": 2, "new": 2}, {"number": 3}], "new": {}}


def test_a_reason_of_a_newer_version_is_kept_and_charged_to_nobody() -> None:
    reason = Reason.read("SolarFlare")
    assert (reason, str(reason), reason.known) == ("SolarFlare", "SolarFlare", False)
    assert reason not in list(Reason)
    assert not reason.facts.permanent
    assert reason.facts.budget is None
    assert copy.deepcopy(reason) == pickle.loads(pickle.dumps(reason)) == reason
    assert Reason.read("Preempted") is Reason.PREEMPTED


def test_an_end_in_a_phase_of_a_newer_version_is_an_end() -> None:
    over = {"phase": "Archived", "finishedAt": "2026-11-23T12:00:00Z"}
    assert DistillJobStatus.model_validate(over).over
    assert not DistillJobStatus.model_validate({"phase": "Archived"}).over
    assert not DistillJobStatus(phase=Phase.RUNNING).over
    assert not Outcome.read("Paused").known


def test_at_the_door_a_field_of_a_newer_version_is_a_mistake() -> None:
    stored = newer(read(stored_objects()[0]), schema_of(crd()))
    with pytest.raises(InvalidJob, match=r"spec\.training\.newField: unknown field"):
        parse_job({"metadata": {"name": "tiny"}, "spec": stored["spec"]})


def test_a_value_of_the_wrong_type_is_not_read() -> None:
    stored = read(stored_objects()[0])
    with pytest.raises(ValidationError):
        read_stored({**stored, "spec": {**stored["spec"], "nodes": "many"}})


def test_the_crd_says_which_schema_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    assert crd()["metadata"]["annotations"] == {"distilljob.dev/schema-hash": schema_hash()}
    before = schema_hash()
    monkeypatch.setattr("distill_api.generate.crd.JOB_NAME_LENGTH", 40)
    assert schema_hash() != before
