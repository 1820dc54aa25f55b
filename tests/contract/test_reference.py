"""docs/distilljob.md: every field of the contract, with what the rules about changes say of it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from distill_api.generate.reference import document, may_change
from distill_api.reading.mistakes import fields_of, model_in
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus
from distill_cli.views.changes import Effect, effect
from distill_client import Job

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())


def places(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in fields_of(model).items():
        inner = model_in(field.annotation)
        yield prefix + name
        if inner is not None:
            yield from places(inner, f"{prefix}{name}.")


def shown() -> set[str]:
    """The fields that the page has, without the marks of lists."""
    found, section = set(), ""
    for line in document().splitlines():
        if heading := re.match(r"^##+ ((?:spec|status)\b\S*)", line):
            section = heading[1]
            found.add(section)
        elif row := re.match(r"^\| `([^`]+)` \|", line):
            found.add(f"{section}.{row[1].replace('[]', '')}")
    return found


def test_the_committed_page_is_what_the_contract_generates() -> None:
    assert (ROOT / "docs/distilljob.md").read_text() == document(), "run `make generate` and commit docs/distilljob.md"


def test_every_field_of_the_contract_is_on_the_page_and_no_other() -> None:
    models = {"spec": DistillJobSpec, "status": DistillJobStatus}
    expected = {place for root, model in models.items() for place in (root, *places(model, f"{root}."))}
    assert shown() == expected


def test_every_field_has_a_type_and_a_description() -> None:
    rows = [line for line in document().splitlines() if line.startswith("| `")]
    assert len(rows) > 150
    for row in rows:
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]]
        assert len(cells) in (3, 5), row
        assert all(cells), row


def job(**status: Any) -> Job:
    spec = {"student": {"model": "yolo26n.yaml"}, "dataset": {"config": "d.yaml"}, "suspend": True}
    spec["volumes"] = {"checkpoints": {"claimName": "a"}, "data": {"claimName": "a"}}
    found = {"phase": "Suspended", "attempt": 1, **status}
    return Job({"metadata": {"name": "a", "namespace": "a"}, "spec": spec, "status": found})


COMMITTED = job(progress={"committedStep": 5})
UNCOMMITTED = job()
UNSTARTED = job(phase="Pending", attempt=0)
TRAINING = job(phase="Running")
LEAVES = [place for place in places(DistillJobSpec) if "claimTemplate" not in place and "[" not in place]


@pytest.mark.parametrize("field", LEAVES)
def test_the_page_and_distill_apply_say_the_same_about_a_change(field: str) -> None:
    def allowed(stored: Job) -> bool:
        return effect(field, 1, 2, stored, elastic=False) in (Effect.NOW, Effect.NEXT_ATTEMPT, Effect.RESUME)

    states = {"always": TRAINING, "suspended": COMMITTED, "uncommitted": UNCOMMITTED, "unstarted": UNSTARTED}
    word = may_change(field)
    assert [name for name, stored in states.items() if allowed(stored)] == list(states)[list(states).index(word) :]
