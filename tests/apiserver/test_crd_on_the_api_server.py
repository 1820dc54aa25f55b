"""The API server takes the examples, and refuses what is wrong with a sentence that says what to change.

Every rule of the contract is broken once, through CEL and through Python, and both must say the same.
"""

from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import KIND, RESERVED_ENV
from distill_api.job import InvalidJob, parse_job
from distill_api.spec import rules
from tests.apiserver.api import Api, Object, Refused
from tests.apiserver.team import manifest
from tests.support.machine.python import ROOT

EXAMPLES = sorted(path for path in (ROOT / "examples").rglob("*.yaml") if f"kind: {KIND}" in path.read_text())


def changed(path: str, value: object, base: Object | None = None) -> Object:
    """A job with one field set, or removed when the value is None."""
    job = deepcopy(base or manifest())
    node = job["spec"]
    *parents, last = path.split(".")
    for parent in parents:
        node = node.setdefault(parent, {})
    if value is None:
        node.pop(last)
    else:
        node[last] = value
    return job


TEMPLATE = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}

RULES = (*rules.SPEC, *rules.VOLUME, *rules.DISTILLATION, *rules.UNTIL)

BROKEN: dict[str, Object] = {
    "give either claimName": changed("volumes.data", {"subPath": "x"}),
    "training.batch is the global batch": changed("training.batch", 18),
    "elastic.minNodes is larger": changed("elastic.minNodes", 3),
    "each CUDA process needs one accelerator": changed(
        "accelerators", {"perNode": 2, "processesPerNode": 4}, changed("device", "cuda")
    ),
    "device is cuda but": changed("accelerators", {"perNode": 0}, changed("device", "cuda")),
    "several nodes write to one checkpoints volume": changed("volumes.checkpoints", {"claimTemplate": TEMPLATE}),
    "give exactly one of epochs": changed(
        "distillation", {"schedule": "stop", "until": {"epochs": 2, "fraction": 0.5}}
    ),
    "distillation.schedule is stop but": changed("distillation.schedule", "stop"),
    "distillation.until has no effect": changed("distillation.until", {"fraction": 0.5}),
    "distillation.until.epochs is larger": changed("distillation", {"schedule": "stop", "until": {"epochs": 1000}}),
    "distillation.until.closeMosaic needs": changed(
        "training.close_mosaic", 0, changed("distillation", {"schedule": "cosine", "until": {"closeMosaic": True}})
    ),
    "teacher.model must be a trained .pt": changed("teacher.model", "yolo26s.yaml"),
    "student.model must be a .pt file": changed("student.model", "yolo26n"),
    "a .pt file is read from the models volume": changed("volumes.models", None),
    "model and data set paths are relative": changed("dataset.config", "../digits.yaml"),
}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_are_accepted(api: Api, path: Path) -> None:
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] == KIND:
            api.create(document, "default", dryRun="All", fieldValidation="Strict")
            parse_job(document)


def test_there_are_examples() -> None:
    assert EXAMPLES


def test_the_sample_of_these_tests_is_accepted(api: Api) -> None:
    api.create(manifest(), "default", dryRun="All", fieldValidation="Strict")
    parse_job(manifest())


def test_every_rule_is_broken_below() -> None:
    checked = [rule.message for rule in RULES if rule.holds is not None]
    assert {m for m in checked if not any(m.startswith(b) for b in BROKEN)} == set()


@pytest.mark.parametrize("beginning", BROKEN)
def test_a_broken_rule_is_refused_alike_by_the_api_server_and_by_python(api: Api, beginning: str) -> None:
    (rule,) = [rule for rule in RULES if rule.message.startswith(beginning)]
    with pytest.raises(Refused) as refused:
        api.create(BROKEN[beginning], "default", dryRun="All")
    assert refused.value.code == 422
    assert rule.message in refused.value.message
    with pytest.raises(InvalidJob, match=beginning):
        parse_job(BROKEN[beginning])


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("training.epochs", 0, "spec.training.epochs"),
        ("training.optimizer", "SDG", "spec.training.optimizer"),
        ("nodes", "two", "spec.nodes"),
        ("student", None, "spec.student"),
        ("teacher.sha256", "abc", "spec.teacher.sha256"),
        ("recovery.gracePeriodSeconds", 5, "spec.recovery.gracePeriodSeconds"),
    ],
)
def test_a_bad_value_is_refused_with_its_place(api: Api, path: str, value: object, place: str) -> None:
    with pytest.raises(Refused) as refused:
        api.create(changed(path, value), "default", dryRun="All")
    assert place in refused.value.message
    with pytest.raises(InvalidJob, match=place):
        parse_job(changed(path, value))


def test_a_misspelt_field_is_named(api: Api) -> None:
    with pytest.raises(Refused, match=r"spec\.training\.epoch"):
        api.create(changed("training.epoch", 5), "default", dryRun="All", fieldValidation="Strict")


OWNED: dict[str, Any] = {
    "terminationGracePeriodSeconds": 5,
    "automountServiceAccountToken": True,
    "nodeSelector": {"a": "b"},
    "tolerations": [{"key": "a", "operator": "Exists"}],
}


@pytest.mark.parametrize("field", rules.OWNED_POD_FIELDS)
def test_a_pod_field_that_the_operator_owns_is_refused_by_name(api: Api, field: str) -> None:
    job = changed("template", {"spec": {field: OWNED.get(field, "x")}})
    with pytest.raises(Refused, match=f"template.spec.{field} is set by the operator"):
        api.create(job, "default", dryRun="All")


@pytest.mark.parametrize("name", sorted(RESERVED_ENV))
def test_a_variable_of_torchrun_is_refused(api: Api, name: str) -> None:
    container = {"name": "trainer", "env": [{"name": name, "value": "1"}]}
    with pytest.raises(Refused, match="belongs to torchrun or the operator"):
        api.create(changed("template", {"spec": {"containers": [container]}}), "default", dryRun="All")


def test_a_template_keeps_fields_that_only_kubernetes_knows(api: Api) -> None:
    mount = {"name": "venv", "mountPath": "/workspace"}
    template = {
        "spec": {
            "containers": [{"name": "trainer", "command": ["python"], "volumeMounts": [mount]}],
            "volumes": [{"name": "venv", "persistentVolumeClaim": {"claimName": "venv"}}],
        }
    }
    stored = api.create(changed("template", template), "default", dryRun="All", fieldValidation="Strict")
    assert stored["spec"]["template"] == template


IMMUTABLE = {
    "student": {"model": "yolo26s.yaml"},
    "teacher": {"model": "other.pt"},
    "dataset": {"config": "coco.yaml"},
    "distillation": {"weight": 3.0},
    "training": {"epochs": 5},
    "nodes": 1,
    "accelerators": {"perNode": 1},
    "device": "auto",
    "volumes": {"data": {"claimName": "coco"}},
}


@pytest.fixture(scope="module")
def stored(api: Api) -> Object:
    """A job that nothing runs: no operator watches yet, and it is suspended."""
    return api.create(changed("suspend", True, manifest("kept")), "default")


@pytest.mark.parametrize("field", IMMUTABLE)
def test_what_defines_the_run_cannot_be_changed(api: Api, stored: Object, field: str) -> None:
    with pytest.raises(Refused, match=f"{field} defines the run and cannot be changed"):
        api.patch("DistillJob", "default", stored["metadata"]["name"], {"spec": {field: IMMUTABLE[field]}})


def test_every_immutable_field_is_tried() -> None:
    updates = [rule for rule in rules.SPEC if rule.holds is None]
    assert {rule.message.split(" ", 1)[0] for rule in updates} == set(IMMUTABLE)


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": False},
        {"recovery": {"maxFailures": 9}},
        {"activeDeadlineSeconds": 3600},
        {"ttlSecondsAfterFinished": 60},
        {"checkpoint": {"keep": 5}},
        {"elastic": {"minNodes": 1}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_only_steers_the_run_can_be_changed(api: Api, stored: Object, change: Object) -> None:
    path = api.path("DistillJob", "default", stored["metadata"]["name"])
    api.request("PATCH", path, {"spec": change}, "application/merge-patch+json", dryRun="All")


def test_defaults_are_stored_with_the_job(stored: Object) -> None:
    spec = stored["spec"]
    assert spec["distillation"] == {
        "weight": 6.0,
        "loss": "sl2",
        "schedule": "constant",
        "allowCrossFamily": False,
    }
    assert spec["recovery"]["maxFailures"] == 3
    assert "maxPreemptions" not in spec["recovery"]
    assert spec["training"]["lr0"] == 0.01


@pytest.mark.parametrize("name", ["1st", "a.b"])
def test_a_name_that_no_service_could_have_is_refused(api: Api, name: str) -> None:
    with pytest.raises(Refused, match=r"metadata\.name"):
        api.create(manifest(name), "default", dryRun="All")
