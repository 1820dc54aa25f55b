"""spec.recipe: one word that stands for other fields."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distill_api.job import InvalidJob, parse_job
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.recipe import applied, chosen
from tests.contract.test_spec import job_with


def spec(**fields: Any) -> DistillJobSpec:
    return parse_job(job_with(**{"recipe": "auto", **fields})).spec


UNLABELLED = {"config": "digits.yaml", "unlabelled": {"images": "more"}}


def test_ultralytics_is_the_default_and_changes_nothing() -> None:
    plain = spec(recipe=None)
    assert plain.recipe == "ultralytics"
    assert chosen(plain) is None
    assert applied(plain, None) is plain


@pytest.mark.parametrize("model", ["yolo26n.yaml", "digits/weights/best.pt"])
@pytest.mark.parametrize("dataset", [{"config": "digits.yaml"}, UNLABELLED], ids=["labelled", "unlabelled"])
def test_auto_is_the_same_as_the_fields_that_it_chooses(model: str, dataset: dict[str, Any]) -> None:
    job = spec(student={"model": model}, dataset=dataset)
    fields = chosen(job)
    assert fields
    found = applied(job, fields)
    written = {name: {**job_with()["spec"].get(name, {}), **value} for name, value in fields.items()}
    written["student"] = {"model": model} | fields.get("student", {})
    assert found == spec(recipe=None, **{"dataset": dataset, **written})
    assert found.recipe == "ultralytics"


@given(epochs=st.integers(1, 400), close=st.integers(0, 20))
def test_what_auto_chooses_is_valid_for_every_length_of_training(epochs: int, close: int) -> None:
    for model in ("yolo26n.yaml", "n.pt"):
        job = spec(student={"model": model}, training={"epochs": epochs, "close_mosaic": close})
        applied(job, chosen(job))


def test_what_a_job_has_besides_stays() -> None:
    job = spec(student={"model": "n.yaml", "trustPickle": True}, training={"epochs": 7})
    found = applied(job, {"student": {"init": "inherit"}, "distillation": {"weight": 0.0}})
    assert (found.student.model, found.student.trust_pickle, found.student.init) == ("n.yaml", True, "inherit")
    assert (found.training.epochs, found.nodes, found.distillation.weight) == (7, job.nodes, 0)


@pytest.mark.parametrize(
    "fields",
    [
        {"student": {"model": "n.yaml", "init": "inherit"}},
        {"student": {"model": "n.yaml", "inherit": {"channels": "importance"}}},
        {"student": {"model": "n.yaml", "inherit": {"images": 8}}},
        {"teacher": {"model": "best.pt", "batchFraction": 0.5}},
        *({"distillation": {name: value}} for name, value in (("weight", 1), ("loss", "cwd"), ("projector", "linear"))),
        {"distillation": {"terms": [{"loss": "spkd"}]}},
        {"distillation": {"terms": [{"loss": "spkd"}], "share": 0.5}},
        {"distillation": {"schedule": "cosine"}},
        {"distillation": {"allowCrossFamily": True}},
    ],
)
def test_auto_and_the_fields_that_it_chooses_exclude_each_other(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidJob, match="leave them out, or set recipe: ultralytics to choose them yourself"):
        spec(**fields)


def test_auto_needs_a_teacher() -> None:
    with pytest.raises(InvalidJob, match="recipe is auto but there is no teacher to learn from; set teacher"):
        spec(teacher=None)
