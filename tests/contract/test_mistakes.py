"""A wrong field of a job: the message names the place, and the field that was probably meant."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_api.job import InvalidJob, parse_job, read_job
from distill_api.reading.mistakes import listed, nearest
from distill_api.reading.ultralytics import ELSEWHERE, NOWHERE
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.training import Training

CLAIM = {"claimName": "claim"}
SPEC: dict[str, Any] = {
    "student": {"model": "yolo26n.yaml"},
    "dataset": {"config": "data.yaml"},
    "volumes": {"checkpoints": CLAIM, "data": CLAIM},
}


def said(**changes: Any) -> str:
    """What is said about a job whose fields, by their path with __ for dots, are set to something else."""
    job: dict[str, Any] = {"metadata": {"name": "job"}, "spec": {**SPEC}}
    for path, value in changes.items():
        *parents, last = path.split("__")
        node = job
        for parent in parents:
            node[parent] = dict(node.get(parent, {}))
            node = node[parent]
        node[last] = value
    with pytest.raises(InvalidJob) as refused:
        parse_job(job)
    return str(refused.value)


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("metadat", "metadat: unknown field; did you mean metadata?"),
        ("spec__studnet", "spec.studnet: unknown field; did you mean student?"),
        ("spec__student__modle", "spec.student.modle: unknown field; did you mean model?"),
        ("spec__student__trust_pickle", "spec.student.trust_pickle: unknown field; did you mean trustPickle?"),
        ("spec__training__epcohs", "spec.training.epcohs: unknown field; did you mean epochs?"),
        ("spec__training__lr", "spec.training.lr: unknown field; did you mean lr0 or lrf?"),
        ("spec__training__dis", "spec.training.dis: unknown field; use spec.distillation.weight"),
        ("spec__training__format", "spec.training.format: unknown field; use spec.export"),
        (
            "spec__training__resume",
            "spec.training.resume: training has no resume: every attempt resumes from the newest"
            " checkpoint, so there is nothing to set",
        ),
        (
            "spec__training__time",
            "spec.training.time: training has no time: how far it comes would depend on machine"
            " and disruptions; set epochs, and spec.activeDeadlineSeconds as the limit of the whole job",
        ),
        ("spec__dataset__split", "spec.dataset.split: unknown field; known fields are config, unlabelled"),
        ("spec__imgsz", "spec.imgsz: unknown field; did you mean spec.training.imgsz?"),
        ("spec__distillation__until__epoch", "spec.distillation.until.epoch: unknown field; did you mean epochs?"),
        ("spec__volumes__data__claim", "spec.volumes.data.claim: unknown field; did you mean claimName?"),
        ("spec__checkpoint__zebra", "spec.checkpoint.zebra: unknown field; known fields are intervalSeconds, keep"),
    ],
)
def test_an_unknown_field_is_told_with_the_nearest_one_at_every_level(field: str, message: str) -> None:
    assert message in said(**{field: 3}).splitlines()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("spec__training__epochs", "ten", "spec.training.epochs: must be a valid integer, but is 'ten'"),
        ("spec__training__fraction", 2.0, "spec.training.fraction: must be less than or equal to 1, but is 2.0"),
        ("spec__training__amp", "bf61", "must be 'auto', 'bf16', 'fp16' or 'fp32', but is 'bf61'"),
        ("spec__training__amp", True, "but is True; Ultralytics' true is auto, and false is fp32"),
        ("spec__training__batch", -1, "must be greater than or equal to 1, but is -1; it is the global batch, and a"),
        ("spec__training__freeze", [1, 2], "but is [1, 2]; it is how many layers are frozen, from the first on"),
        ("spec__training", None, "spec.training: is empty; remove it, or add fields below it"),
        ("spec__student", "yolo26n.pt", "spec.student: must be a mapping with fields such as model, trustPickle"),
        ("spec__student", {}, "spec.student.model: is missing"),
        (
            "metadata",
            {"name": "My_Job"},
            "metadata.name: 'My_Job' is invalid; expected: Name of the job: at most 52 lower case letters",
        ),
        ("spec__teacher", {"model": "t.pt", "sha256": "12"}, "64 lower case hex digits"),
    ],
)
def test_a_wrong_value_is_told_with_what_it_must_be(field: str, value: Any, message: str) -> None:
    assert message in said(**{field: value})


def test_python_names_are_no_names_of_a_job() -> None:
    assert "did you mean intervalSeconds?" in said(spec__checkpoint__interval_seconds=5)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: DistillJob\nspec:\n  nodes: [1, 2", "not a YAML file: line 3: expected ',' or ']'"),
        ("kind: DistillJob\nspec:\n  nodes: 1\n  nodes: 2\n", "not a YAML file: line 4: nodes is given twice"),
        ("kind: DistillJob\n\tspec: {}\n", "not a YAML file: line 2: "),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_the_line(text: str, message: str) -> None:
    with pytest.raises(InvalidJob) as refused:
        read_job(text)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("wrong", ["", "zzzzzz", "0"])
def test_what_is_like_nothing_is_not_guessed(wrong: str) -> None:
    assert nearest(wrong, Training.model_fields) == []


@given(st.sampled_from(sorted(Training.model_fields)), st.data())
def test_a_name_with_one_letter_left_out_still_finds_its_field(name: str, data: st.DataObject) -> None:
    if len(name) < 5:
        return
    at = data.draw(st.integers(0, len(name) - 1))
    assert name in nearest(name[:at] + name[at + 1 :], Training.model_fields)


def test_the_fields_that_replace_arguments_of_ultralytics_exist() -> None:
    for place in ELSEWHERE.values():
        top, first, *rest = place.split(".")
        assert top == "metadata" or first in DistillJobSpec.model_fields, place
        assert not rest or rest[0]
    assert not set(ELSEWHERE) & set(Training.model_fields)
    assert not set(NOWHERE) & set(Training.model_fields)


def test_a_list_of_names_is_cut_and_says_so() -> None:
    assert (listed(["a", "b"], 2), listed(["a", "b", "c", "d"], 2)) == ("a, b", "a, b and 2 more")
