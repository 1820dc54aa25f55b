"""The definition of a run, as checkpoints record it, and which changes of it a checkpoint survives."""

from typing import Any

import pytest

from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.rules.corrections import DEFINING, JOB, LATER, MISMATCH, Change, changes, definition
from distill_api.spec.training import Training
from tests.support.operator.samples import job


def spec(**fields: Any) -> DistillJobSpec:
    return job(**fields).spec


BEFORE = spec()
CHANGES = {
    "another student": ({"student": {"model": "yolo26s.yaml"}}, "student.model yolo26n.yaml, now yolo26s.yaml", False),
    "no teacher": ({"teacher": None}, "teacher.model teacher.pt, now unset", False),
    "another batch": ({"training": {"batch": 32}}, "training.batch 16, now 32", False),
    "more nodes": ({"nodes": 4}, "worldSize 2, now 4", False),
    "another weight": ({"distillation": {"weight": 3.0}}, "distillation.weight unset, now 3.0", False),
    "more epochs": ({"training": {"batch": 16, "epochs": 200}}, "training.epochs 100, now 200", True),
    "fewer epochs": ({"training": {"batch": 16, "epochs": 50}}, "training.epochs 100, now 50", False),
    "another rate": ({"training": {"batch": 16, "lr0": 0.001}}, "training.lr0 0.01, now 0.001", True),
}


@pytest.mark.parametrize(("fields", "text", "allowed"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_named_with_both_values(fields: dict[str, Any], text: str, allowed: bool) -> None:
    (change,) = changes(definition(BEFORE), definition(spec(**fields)))
    assert (str(change), change.allowed) == (text, allowed)


@pytest.mark.parametrize(
    "fields",
    [
        {"training": {"batch": 16, "lr0": 0.01}},  # its default
        {"teacher": {"model": "teacher.pt", "sha256": "ab" * 32, "trustPickle": True}},
        {"accelerators": {"perNode": 1, "resource": "amd.com/gpu"}},
        {"recovery": {"maxFailures": 9}},
        {"image": "other"},
    ],
)
def test_what_does_not_define_the_run_is_no_change(fields: dict[str, Any]) -> None:
    assert changes(definition(BEFORE), definition(spec(**fields))) == []


def test_a_field_that_the_writer_did_not_know_has_its_default() -> None:
    recorded = definition(spec(training={"batch": 16, "lrf": 0.5}))
    del recorded["training"]["lrf"]
    assert [c.field for c in changes(recorded, definition(spec(training={"batch": 16, "lrf": 0.5})))] == [
        "training.lrf"
    ]


def test_every_field_of_training_is_compared_by_the_api_server() -> None:
    (rule,) = [rule for rule in JOB if rule.message.startswith("training defines")]
    named = {field for field in Training.model_fields if f"self.spec.training.{field} ==" in rule.cel}
    assert named == set(Training.model_fields) - set(LATER)
    assert set(LATER) < set(Training.model_fields)
    assert set(DEFINING) < set(DistillJobSpec.model_fields)


def test_the_rules_and_the_table_have_the_same_word() -> None:
    assert Reason.CHECKPOINT_MISMATCH == MISMATCH
    assert not Change("student.epochs", 1, 2).allowed, "only fields of training"
