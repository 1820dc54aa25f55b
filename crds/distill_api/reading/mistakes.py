"""Explains an invalid field: where it is, what is wrong, and which name was probably meant."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from difflib import SequenceMatcher
from functools import cache
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from distill_api.reading import ultralytics

Model = type[BaseModel]

_LISTED = 12
"""A message lists all known fields if there are no more than this."""


class BrokenRules(ValueError):
    """Rules across fields that do not hold: the text of each, and whether it begins with a field of the model."""

    def __init__(self, rules: Sequence[tuple[str, bool]]) -> None:
        super().__init__("; ".join(text for text, _ in rules))
        self.rules = rules


def explain(error: ValidationError, model: Model) -> list[str]:
    """One line per mistake in the input of `model`, such as `spec.training.epochs: must be …`."""
    lines = []
    for item in error.errors(include_url=False):
        place, broken = ".".join(str(part) for part in item["loc"]), (item.get("ctx") or {}).get("error")
        for text, of_field in broken.rules if isinstance(broken, BrokenRules) else [(_said(item, model), False)]:
            lines.append(f"{place}{'.' if of_field else ': '}{text}" if place else text)
    return lines


def listed(names: Sequence[str], most: int) -> str:
    """At most so many of the names, and how many more there are: a, b and 3 more."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """The entries of `names` that are most similar to `name`, best first; empty if none is similar."""
    meant = _plain(name)
    score = {known: SequenceMatcher(None, meant, _plain(known)).ratio() for known in names}
    best = max(score.values(), default=0.0)
    near = [known for known in score if score[known] >= max(0.6, best - 0.05)]
    return sorted(near, key=lambda known: -score[known])[:3]


def _plain(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")


def _said(item: Mapping[str, Any], model: Model) -> str:
    kind, value, location = item["type"], item["input"], item["loc"]
    if kind == "extra_forbidden":
        return _unknown(location, model)
    if kind == "missing":
        return "is missing"
    if kind == "model_type":
        return _no_mapping(value, _model_at(location, model))
    if kind == "value_error":  # the message of a rule of the contract
        return str(item["msg"]).removeprefix("Value error, ")
    if kind == "string_pattern_mismatch" and (field := _field(location, model)) is not None:
        return f"{_shown(value)} is invalid; expected: {_first_sentence(field)}"
    expected = str(item["msg"]).removeprefix("Input ").replace("should", "must", 1).partition(", ")
    listed = expected[0] if kind.endswith(("_parsing", "_from_float")) else "".join(expected)
    hint = ultralytics.VALUES.get((str(location[-1]), type(value))) if location[-2:-1] == ("training",) else None
    return f"{listed[0].lower()}{listed[1:]}, but is {_shown(value)}" + (f"; {hint}" if hint else "")


def _first_sentence(field: FieldInfo) -> str:
    return " ".join((field.description or "").split()).partition(". ")[0].rstrip(".")


def _no_mapping(value: object, expected: Model | None) -> str:
    fields = ", ".join(list(fields_of(expected))[:6]) if expected is not None else ""
    if value is None:
        return "is empty; remove it, or add fields below it"
    return f"must be a mapping with fields such as {fields}, but is {_shown(value)}"


def _shown(value: object) -> str:
    text = repr(value) if value is not None else "empty"
    return text if len(text) <= 60 else text[:59] + "…"


def _unknown(location: Sequence[str | int], model: Model) -> str:
    name = str(location[-1])
    parent = _model_at(location[:-1], model)
    if parent is None:
        return "unknown field"
    here, there = list(fields_of(parent)), ultralytics.ELSEWHERE.get(name)
    if there in _places(model):
        return f"unknown field; use {there}"
    if name in ultralytics.NOWHERE and location[-2:-1] == ("training",):
        return f"training has no {name}: {ultralytics.NOWHERE[name]}"
    elsewhere = [place for place in _places(model) if place.rpartition(".")[2] == name]
    near = elsewhere or nearest(name, here)
    if near:
        return f"unknown field; did you mean {' or '.join(near)}?"
    return f"unknown field; known fields are {', '.join(here)}" if len(here) <= _LISTED else "unknown field"


def fields_of(model: Model) -> dict[str, FieldInfo]:
    """Fields by their names in YAML."""
    return {field.alias or name: field for name, field in model.model_fields.items()}


def _field(location: Sequence[str | int], model: Model) -> FieldInfo | None:
    parent = _model_at(location[:-1], model)
    return None if parent is None else fields_of(parent).get(str(location[-1]))


def _model_at(location: Sequence[str | int], model: Model) -> Model | None:
    current: Model | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        field = fields_of(current).get(part)
        current = model_in(field.annotation) if field is not None else None
    return current


def model_in(annotation: Any) -> Model | None:
    """The model in an annotation such as `Teacher | None` or `list[Attempt]`."""
    if get_origin(annotation) is Annotated or get_origin(annotation) in (Union, UnionType, list):
        found = (model_in(argument) for argument in get_args(annotation))
        return next((inner for inner in found if inner is not None), None)
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


@cache
def _places(model: Model) -> tuple[str, ...]:
    """Paths of all fields of a model and its parts, the shortest first."""
    return tuple(sorted(_walk(model), key=lambda place: place.count(".")))


def _walk(model: Model, prefix: str = "") -> Iterator[str]:
    for name, field in fields_of(model).items():
        if name == "status":  # users do not write it
            continue
        yield prefix + name
        inner = model_in(field.annotation)
        if inner is not None:
            yield from _walk(inner, f"{prefix}{name}.")
