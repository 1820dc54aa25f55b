"""The API server takes the examples, and refuses what is wrong with a sentence that says what to change.

Every rule of the contract is broken once, through CEL and through Python, and both must say the same.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path

import pytest
import yaml

from distill_api.constants import KIND
from distill_api.job import InvalidJob, parse_job
from distill_api.spec.distillation import DISTILLATION, UNTIL
from distill_api.spec.inherit import INHERIT
from distill_api.spec.rules import across
from distill_api.spec.rules.exit_codes import EXIT_CODES
from distill_api.spec.volumes import SOURCE_VOLUME, VOLUME
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, Object, Refused
from tests.support.apiserver.team import manifest
from tests.support.machine.python import ROOT
from tests.support.templates import ALLOWED, REFUSED

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

RULES = (
    *across.SPEC, *across.RESOURCES, *across.SCHEDULING, *VOLUME, *SOURCE_VOLUME, *INHERIT, *DISTILLATION, *UNTIL,
    *EXIT_CODES
)  # fmt: skip

BROKEN: dict[str, Object] = {
    "give either claimName": changed("volumes.checkpoints", {"subPath": "x"}),
    "give exactly one of claimName": changed("volumes.data", {"claimName": "coco", "image": {"reference": "coco:1"}}),
    "an emptyDir has no files": changed("volumes.data", {"emptyDir": {}}),
    "training.batch is the global batch": changed("training.batch", 18),
    "elastic.minNodes is larger": changed("elastic.minNodes", 3),
    "each CUDA process needs one accelerator": changed(
        "accelerators", {"perNode": 2, "processesPerNode": 4}, changed("device", "cuda")
    ),
    "device is cuda but": changed("accelerators", {"perNode": 0}, changed("device", "cuda")),
    "checkOnly is one process": changed("checkOnly", True, changed("accelerators", {"perNode": 0})),
    "a request in resources is larger": changed("resources", {"requests": {"cpu": 9}, "limits": {"cpu": "8500m"}}),
    "accelerators are no part of resources": changed("resources.requests", {"nvidia.com/gpu": "2"}),
    "requests and limits of the training container": changed(
        "resources",
        {},
        changed("template", {"spec": {"containers": [{"name": "trainer", "resources": {"limits": {"cpu": 1}}}]}}),
    ),
    "each pod has a node of its own": changed("scheduling.requiredTopology", "kubernetes.io/hostname"),
    "several nodes write to one checkpoints volume": changed("volumes.checkpoints", {"claimTemplate": TEMPLATE}),
    "give only one of epochs": changed("distillation", {"schedule": "stop", "until": {"epochs": 2, "fraction": 0.5}}),
    "distillation.until says nothing": changed("distillation", {"schedule": "stop", "until": {}}),
    "distillation.until.minImprovement compares": changed(
        "distillation", {"schedule": "cosine", "until": {"minImprovement": 0.03}}
    ),
    "distillation.schedule is stop but": changed("distillation.schedule", "stop"),
    "distillation.until has no effect": changed("distillation.until", {"fraction": 0.5}),
    "distillation.terms takes the place": changed("distillation", {"loss": "cwd", "terms": [{"loss": "spkd"}]}),
    "distillation.terms has a loss twice": changed("distillation.terms", [{"loss": "spkd"}, {"loss": "spkd"}]),
    "distillation.share weighs terms": changed("distillation.share", 0.5),
    "distillation.until.epochs is larger": changed("distillation", {"schedule": "stop", "until": {"epochs": 1000}}),
    "distillation.until.closeMosaic needs": changed(
        "training.close_mosaic", 0, changed("distillation", {"schedule": "cosine", "until": {"closeMosaic": True}})
    ),
    "teacher.model must be a trained .pt": changed("teacher.model", "yolo26s.yaml"),
    "dataset.unlabelled has images": changed("dataset.unlabelled", {"images": "more"}, changed("teacher", None)),
    "student.init is inherit but": changed("student.init", "inherit", changed("teacher", None)),
    "student.inherit.channels: activations are": changed("student.inherit", {"images": 0}),
    "a student cannot inherit from": changed("student.init", "inherit", changed("distillation.allowCrossFamily", True)),
    "recipe is auto but": changed("recipe", "auto", changed("teacher", None)),
    "recipe: auto chooses": changed("recipe", "auto", changed("distillation.weight", 3.0)),
    "student.model must be a .pt file": changed("student.model", "yolo26n"),
    "a .pt file is read from the models volume": changed("volumes.models", None),
    "recovery.exitCodes cannot have": changed("recovery.exitCodes", [{"values": [42, 143], "action": "FailJob"}]),
    "recovery.exitCodes has the same": changed(
        "recovery.exitCodes", [{"values": [42, 75], "action": "FailJob"}, {"values": [75], "action": "Ignore"}]
    ),
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
        ("scheduling.preferredTopology", "a rack", "spec.scheduling.preferredTopology"),
        ("resources.requests", {"cpu": "much"}, "spec.resources.requests.cpu"),
        ("resources.requests", {"cpu": 0.5}, "spec.resources.requests.cpu"),
        ("resources.limits", {"cpu": True}, "spec.resources.limits.cpu"),
        ("dataCache", {"medium": "node"}, "spec.dataCache.size"),
        ("dataCache", {"size": "much"}, "spec.dataCache.size"),
        ("volumes.data", {"image": {"reference": ""}}, "spec.volumes.data.image.reference"),
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


@pytest.mark.parametrize("case", REFUSED)
def test_a_refused_template_is_named_by_both(api: Api, case: str) -> None:
    template, message = REFUSED[case]
    with pytest.raises(Refused) as refused:
        api.create(changed("template", template), "default", dryRun="All")
    assert refused.value.code == 422
    assert message in refused.value.message
    with pytest.raises(InvalidJob) as caught:
        parse_job(changed("template", template))
    assert message in str(caught.value)


@pytest.mark.parametrize("case", ALLOWED)
def test_a_template_keeps_fields_that_only_kubernetes_knows(api: Api, case: str) -> None:
    stored = api.create(changed("template", ALLOWED[case]), "default", dryRun="All", fieldValidation="Strict")
    assert stored["spec"]["template"] == ALLOWED[case]


@pytest.fixture(scope="module")
def stored(api: Api) -> Object:
    """A job that nothing runs: no operator watches yet, and it is suspended."""
    return api.create(changed("suspend", True, manifest("kept")), "default")


@pytest.fixture
def elastic(api: Api, plane: ControlPlane) -> Iterator[Callable[..., Object]]:
    """Make a suspended job, elastic or not, with two nodes of two processes; and scale it with kubectl."""

    def scale(nodes: int, **status: int) -> Object:
        if status:
            api.patch("DistillJob", "default", "scaled", {"status": status}, "status")
        plane.kubectl("scale", "dj/scaled", f"--replicas={nodes}", "--namespace=default")
        path = api.path("DistillJob", "default", "scaled", "scale")
        assert api.request("GET", path)["spec"]["replicas"] == nodes
        return api.get("DistillJob", "default", "scaled") or {}

    job = manifest("scaled", nodes=2, suspend=True, elastic={"minNodes": 2}, training={"batch": 48})
    api.create(job, "default")
    yield scale
    api.delete("DistillJob", "default", "scaled")


def test_kubectl_scale_sets_the_nodes_of_an_elastic_job(elastic: Callable[..., Object]) -> None:
    assert elastic(3)["spec"]["nodes"] == 3
    assert elastic(4, attempt=1, fullNodes=6)["spec"]["nodes"] == 4
    assert elastic(6)["spec"]["nodes"] == 6
    assert elastic(2)["spec"]["nodes"] == 2


@pytest.mark.parametrize(
    ("nodes", "status", "message"),
    [
        (5, {}, "training.batch is the global batch and must be divisible"),
        (1, {}, "elastic.minNodes is larger than nodes"),
        (0, {}, "greater than or equal to"),
        (3, {"attempt": 1, "fullNodes": 2}, "nodes cannot be more than the first attempt started with"),
        (3, {"attempt": 1}, "nodes cannot be more than the first attempt started with"),
    ],
)
def test_a_number_of_nodes_that_cannot_be_is_refused(
    elastic: Callable[..., Object], nodes: int, status: dict[str, int], message: str
) -> None:
    with pytest.raises(RuntimeError, match=message):
        elastic(nodes, **status)


@pytest.mark.parametrize("before", [{}, {"minNodes": 1}], ids=["never", "no_more"])
def test_nodes_of_a_job_that_is_not_elastic_cannot_be_changed(api: Api, before: Object) -> None:
    spec = {"elastic": before} if before else {}
    api.create(manifest("rigid", **spec), "default")
    try:
        for elastic in (None, {"minNodes": 1}):
            if before and elastic:
                continue
            with pytest.raises(Refused, match="nodes cannot be changed"):
                api.patch("DistillJob", "default", "rigid", {"spec": {"nodes": 1, "elastic": elastic}})
    finally:
        api.delete("DistillJob", "default", "rigid")


def test_the_status_of_a_job_that_was_scaled_can_be_written(api: Api, elastic: Callable[..., Object]) -> None:
    """The rule compares spec and status, and the operator writes the status last."""
    elastic(3, attempt=1, fullNodes=4)
    stored = api.patch("DistillJob", "default", "scaled", {"status": {"replicas": 3, "attempt": 2}}, "status")
    assert (stored["status"]["replicas"], stored["status"]["fullNodes"]) == (3, 4)


@pytest.mark.parametrize(
    "change",
    [
        {"suspend": False},
        {"scheduling": {"requiredTopology": "topology.kubernetes.io/zone", "preferredTopology": "rack"}},
        {"resources": {"requests": {"cpu": 8}, "limits": {"cpu": "8000m", "memory": "1.5Gi"}}},
        {"recovery": {"maxFailures": 9}},
        {"activeDeadlineSeconds": 3600},
        {"ttlSecondsAfterFinished": 60},
        {"cleanPodPolicy": "All"},
        {"imagePullSecrets": [{"name": "registry"}]},
        {"checkpoint": {"keep": 5}},
        {"elastic": {"minNodes": 1}},
        {"dataCache": {"medium": "ram", "size": "10Gi"}},
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
        "terms": [],
        "projector": "mlp",
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
