"""A DistillJob as a user writes it: what is accepted, and what is said about each mistake."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_api.constants import ExitCode
from distill_api.job import InvalidJob, parse_job, read_job
from distill_api.pod.report import MAX_MESSAGE, TerminationMessage
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason

JOB: dict[str, Any] = {
    "apiVersion": "distilljob.dev/v1alpha1",
    "kind": "DistillJob",
    "metadata": {"name": "digits"},
    "spec": {
        "student": {"model": "yolo26n.yaml"},
        "teacher": {"model": "digits-teacher/weights/best.pt"},
        "dataset": {"config": "digits.yaml"},
        "nodes": 2,
        "accelerators": {"perNode": 1},
        "device": "cpu",
        "volumes": {
            "checkpoints": {"claimName": "runs"},
            "data": {"claimName": "digits"},
            "models": {"claimName": "runs"},
        },
    },
}


def job_with(**spec: Any) -> dict[str, Any]:
    job = copy.deepcopy(JOB)
    for path, value in spec.items():
        node = job["spec"]
        *parents, last = path.split("__")
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is None:
            node.pop(last, None)
        else:
            node[last] = value
    return job


def stop(**until: Any) -> dict[str, Any]:
    return {"schedule": "stop", "until": until}


def codes(*rules: list[int]) -> dict[str, Any]:
    """A job with a rule for each list of exit codes."""
    return job_with(recovery={"exitCodes": [{"values": values, "action": "Ignore"} for values in rules]})


MISTAKES = {
    "unknown field": (job_with(studnet={"model": "x.pt"}), "spec.studnet"),
    "unknown training argument": (job_with(training__epoch=3), "spec.training.epoch"),
    "epochs not positive": (job_with(training__epochs=0), "spec.training.epochs"),
    "batch not divisible": (job_with(training__batch=15), "divisible by nodes"),
    "two sources of a volume": (
        job_with(volumes__data={"claimName": "a", "claimTemplate": {"resources": {"requests": {"storage": "1Gi"}}}}),
        "exactly one of claimName",
    ),
    "a claim and an image": (
        job_with(volumes__models={"claimName": "a", "image": {"reference": "models:1"}}),
        "exactly one of claimName",
    ),
    "no source of a volume": (job_with(volumes__data={}), "exactly one of claimName"),
    "no claim for checkpoints": (job_with(volumes__checkpoints={}), "either claimName"),
    "checkpoints in an image": (
        job_with(volumes__checkpoints={"image": {"reference": "runs:1"}}),
        "spec.volumes.checkpoints.image",
    ),
    "nobody fills an emptyDir": (job_with(volumes__data={"emptyDir": {}}), "until an init container fills it"),
    "shared checkpoints on ReadWriteOnce": (
        job_with(
            volumes__checkpoints={
                "claimTemplate": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
            }
        ),
        "add ReadWriteMany",
    ),
    "untrained teacher": (job_with(teacher={"model": "yolo26s.yaml"}), "must be a trained .pt file"),
    "student is neither": (job_with(student={"model": "yolo26n.onnx"}), "a .pt file or a .yaml"),
    "nobody to inherit from": (job_with(student={"model": "n.yaml", "init": "inherit"}, teacher=None), "set teacher"),
    "activations without images": (
        job_with(student={"model": "n.yaml", "init": "inherit", "inherit": {"images": 0}}),
        "set student.inherit.images, or channels to index or importance",
    ),
    "inherits from another family": (
        job_with(student={"model": "n.yaml", "init": "inherit"}, distillation={"allowCrossFamily": True}),
        "a student cannot inherit from a model of another family",
    ),
    "unknown first weights": (job_with(student={"model": "n.yaml", "init": "teacher"}), "spec.student.init"),
    "no models volume": (job_with(volumes__models=None), "set volumes.models"),
    "path leaves the volume": (job_with(dataset={"config": "../secret.yaml"}), "must stay inside them"),
    "baseline leaves the volume": (job_with(report={"baseline": "/etc/run"}), "must stay inside them"),
    "unknown export format": (job_with(export={"formats": ["tflite"]}), "spec.export.formats.0"),
    "cuda without accelerators": (job_with(device="cuda", accelerators={"perNode": 0}), "accelerators.perNode is 0"),
    "more processes than accelerators": (
        job_with(device="auto", accelerators={"perNode": 1, "processesPerNode": 2}),
        "each CUDA process needs one accelerator",
    ),
    "more nodes at least than at most": (job_with(elastic={"minNodes": 3}), "elastic.minNodes is larger than nodes"),
    "unknown loss": (job_with(distillation__loss="mgd"), "spec.distillation.loss"),
    "stop without an end": (job_with(distillation__schedule="stop"), "minImprovement in until"),
    "constant with an end": (
        job_with(distillation__until={"fraction": 0.5}),
        "set distillation.schedule to stop or cosine",
    ),
    "two ends": (job_with(distillation=stop(epochs=3, fraction=0.5)), "give only one of epochs"),
    "no end named": (job_with(distillation=stop()), "distillation.until says nothing"),
    "losses of a weight that falls are compared": (
        job_with(distillation={"schedule": "cosine", "until": {"minImprovement": 0.03}}),
        "set distillation.schedule to stop",
    ),
    "an improvement by all of it": (job_with(distillation=stop(minImprovement=1)), "until.minImprovement"),
    "an end after the run": (job_with(distillation=stop(epochs=9), training={"epochs": 8}), "lower it"),
    "mosaic is never closed": (
        job_with(distillation=stop(closeMosaic=True), training={"close_mosaic": 0}),
        "set training.close_mosaic",
    ),
    "mosaic is never on": (
        job_with(distillation=stop(closeMosaic=True), training={"close_mosaic": 8, "epochs": 8}),
        "set training.close_mosaic",
    ),
    "fraction of nothing": (job_with(distillation=stop(fraction=0)), "spec.distillation.until.fraction"),
    "no quantity": (
        job_with(resources={"limits": {"memory": "much"}}),
        "spec.resources.limits.memory: 'much' is not a",
    ),
    "a fraction without quotes": (job_with(resources={"requests": {"cpu": 0.5}}), "0.5 is not a quantity; write it in"),
    "a negative quantity": (job_with(resources={"requests": {"cpu": -1}}), "'-1' is not a quantity"),
    "a request above its limit": (
        job_with(resources={"requests": {"memory": "9Gi"}, "limits": {"memory": "9G"}}),
        "lower the request",
    ),
    "accelerators among resources": (job_with(resources={"limits": {"nvidia.com/gpu": 1}}), "set spec.accelerators"),
    "resources in two places": (
        job_with(resources={}, template={"spec": {"containers": [{"name": "trainer", "resources": {"limits": {}}}]}}),
        "keep one of them",
    ),
    "no label as a topology": (
        job_with(scheduling={"requiredTopology": "my zone"}),
        "spec.scheduling.requiredTopology",
    ),
    "one node for all pods": (
        job_with(scheduling={"preferredTopology": "kubernetes.io/hostname"}),
        "name a larger one",
    ),
    "a reserved exit code": (codes([1, 0]), "recovery.exitCodes cannot have 0"),
    "an exit code in two rules": (codes([42, 75], [75]), "the same exit code twice"),
    "an exit code twice in a rule": (codes([42, 42]), "the same exit code twice"),
    "an exit code of no process": (codes([256]), "spec.recovery.exitCodes.0.values.0"),
    "a rule without a code": (codes([]), "spec.recovery.exitCodes.0.values"),
    "too many rules": (codes(*([code] for code in range(1, 18))), "spec.recovery.exitCodes"),
    "an action of the Job controller alone": (
        job_with(recovery={"exitCodes": [{"values": [42], "action": "FailIndex"}]}),
        "must be 'FailJob' or 'Ignore'",
    ),
    "bad digest": (job_with(teacher={"model": "t.pt", "sha256": "abc"}), "spec.teacher.sha256"),
}


def test_a_complete_job_is_accepted_and_survives_a_round_trip() -> None:
    job = parse_job(JOB)
    assert job.spec.world_size == 2
    assert not job.spec.uses_cuda
    assert parse_job({**JOB, "spec": job.spec.to_wire()}).spec == job.spec


@pytest.mark.parametrize(
    "distillation",
    [
        {"loss": "logit", "schedule": "cosine"},
        {"loss": "cwd", "schedule": "cosine", "until": {"epochs": 4}},
        stop(epochs=100),
        stop(fraction=0.33),
        stop(closeMosaic=True),
        stop(minImprovement=0.03),
        stop(minImprovement=0.03, fraction=0.5),
    ],
)
def test_the_weight_can_end_in_several_ways(distillation: dict[str, Any]) -> None:
    job = parse_job(job_with(distillation=distillation))
    assert parse_job({**JOB, "spec": job.spec.to_wire()}).spec == job.spec


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_named_with_its_place(mistake: str) -> None:
    document, expected = MISTAKES[mistake]
    with pytest.raises(InvalidJob, match=expected.replace("(", r"\(")):
        parse_job(document)


@pytest.mark.parametrize(("batch", "usable"), [(10, "8 or 12"), (3, "4")])
def test_a_batch_that_cannot_be_divided_is_told_with_what_can(batch: int, usable: str) -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(job_with(training__batch=batch, nodes=2, accelerators__perNode=2, elastic={"minNodes": 3}))
    first, second = str(caught.value).splitlines()
    assert first == (
        "spec.training.batch is the global batch and must be divisible by nodes times processes per node:"
        f" {batch} is not, by 2 × 2 = 4; use {usable}"
    )
    assert second.startswith("spec: elastic.minNodes is larger than nodes")


def test_every_mistake_of_a_job_is_listed_at_once() -> None:
    with pytest.raises(InvalidJob) as caught:
        parse_job(job_with(training__epochs=0, nodes=0))
    assert len(str(caught.value).splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "not a YAML file"),
        ("kind: ConfigMap", "expected one document of kind DistillJob, found 0: kind ConfigMap$"),
        ("kind: Distilljob", "found 0: kind Distilljob; did you mean DistillJob"),
        ("kind: Pod\n---\nkind: Service", "found 0: kind Pod, kind Service$"),
        ("kind: List\nitems: []", "found 0: a List, whose items must be documents of their own$"),
        ("- kind: DistillJob", "found 0: a list$"),
        ("words", "found 0: plain text$"),
        ("a: 1", "found 0: a document without kind$"),
        ("", "found 0$"),
        ("kind: DistillJob\n---\nkind: DistillJob", "found 2"),
        ("kind: DistillJob", "metadata"),
    ],
)
def test_a_file_without_a_job_is_refused(text: str, expected: str) -> None:
    with pytest.raises(InvalidJob, match=expected):
        read_job(text)


def test_a_run_config_is_the_same_after_its_trip_through_the_environment() -> None:
    run = RunConfig(job="digits", uid="u", attempt=3, nodes=2, rendezvous="h:1", spec=parse_job(JOB).spec)
    assert RunConfig.model_validate_json(run.to_json()) == run
    assert run.world_size == 2


@given(st.text(max_size=20_000))
def test_a_termination_message_is_never_cut_by_kubernetes(text: str) -> None:
    message = TerminationMessage(outcome="failed", reason=Reason.TRAINER_ERROR, message=text, attempt=1)
    wire = message.to_json()
    assert len(wire.encode()) <= MAX_MESSAGE
    assert TerminationMessage.model_validate_json(wire).reason == Reason.TRAINER_ERROR


def test_exit_codes_are_those_that_the_documents_promise() -> None:
    assert {code.name: int(code) for code in ExitCode} == {"DONE": 0, "PERMANENT": 78, "STOPPED": 143}
