"""Fields of stored objects that this version does not know: which there are, and how they are kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from distill_api.reading.mistakes import fields_of, model_in

Place = tuple[str | int, ...]
"""Names of fields, and indices of lists, from the outermost inwards."""


def unknown_fields(stored: Mapping[str, Any], model: type[BaseModel]) -> dict[Place, Any]:
    """The fields of a stored object, by their place, that `model` does not have."""
    return dict(_unknown(stored, model, ()))


def _unknown(stored: Any, model: type[BaseModel], place: Place) -> Iterator[tuple[Place, Any]]:
    if isinstance(stored, list):
        for index, item in enumerate(stored):
            yield from _unknown(item, model, (*place, index))
    if not isinstance(stored, Mapping):
        return
    known = fields_of(model)
    for name, value in stored.items():
        inner = model_in(known[name].annotation) if name in known else None
        if name not in known:
            yield (*place, name), value
        elif inner is not None:
            yield from _unknown(value, inner, (*place, name))


def with_unknown(
    new: Mapping[str, Any], stored: Mapping[str, Any], model: type[BaseModel], keys: Mapping[str, str]
) -> dict[str, Any]:
    """The new object, with the fields of the stored one that `model` does not have.

    `keys` has for each list the field that tells its elements apart. What `new` has no more, such as a whole element,
    takes its unknown fields with it.
    """
    known, merged = fields_of(model), dict(new)
    for name, value in stored.items():
        inner = model_in(known[name].annotation) if name in known else None
        if name not in known:
            merged.setdefault(name, value)
        elif inner is not None and name in new:
            merged[name] = _with_unknown(new[name], value, inner, keys, keys.get(name))
    return merged


def _with_unknown(new: Any, stored: Any, model: type[BaseModel], keys: Mapping[str, str], key: str | None) -> Any:
    if isinstance(new, Mapping) and isinstance(stored, Mapping):
        return with_unknown(new, stored, model, keys)
    if key is None or not isinstance(new, Sequence) or not isinstance(stored, Sequence):
        return new
    by_key = {item.get(key): item for item in stored if isinstance(item, Mapping)}
    return [with_unknown(item, by_key.get(item[key], {}), model, keys) for item in new]
