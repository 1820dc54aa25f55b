"""recipe: one word for the fields of spec that say how a student learns from its teacher.

What `auto` stands for follows from measurements: docs/results. A job keeps what it started with (status.recipe).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from distill_api.spec.fields import DistillJobSpec

Fields = Mapping[str, Any]
"""A part of spec, as it is written in YAML."""
RecipeName = Literal["auto", "ultralytics"]

_INHERIT: Final = {"init": "inherit", "inherit": {"channels": "activations", "images": 64}}
_HEAD: Final = [{"loss": "bckd"}, {"loss": "iou"}]
AUTO: Final[Fields] = {
    "student": _INHERIT,
    "distillation": {"terms": _HEAD, "schedule": "cosine", "until": {"fraction": 0.3}},
}
"""Inheriting makes nearly all of the gain, also for a student that has weights of its own. The teacher's scores and
boxes help at first; later, and on a part of the images, they cost more than they give.
"""
AUTO_UNLABELLED: Final[Fields] = {"student": _INHERIT, "distillation": {"terms": _HEAD}}
"""For images that only the teacher can label."""


def chosen(spec: DistillJobSpec) -> dict[str, Any] | None:
    """The fields that spec.recipe sets; None for ultralytics, which are the defaults."""
    if spec.recipe != "auto":
        return None
    return auto(unlabelled=spec.dataset.unlabelled is not None)


def auto(*, unlabelled: bool) -> dict[str, Any]:
    """What recipe: auto stands for, without and with images that only the teacher labels."""
    return dict(AUTO_UNLABELLED if unlabelled else AUTO)


def applied(spec: DistillJobSpec, fields: Fields | None) -> DistillJobSpec:
    """The spec with these fields in place of the word; the same spec for None."""
    if fields is None:
        return spec
    wire = spec.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"recipe"})
    return type(spec).model_validate(_merged(wire, fields), by_alias=True, by_name=False)


def _merged(wire: Fields, fields: Fields) -> dict[str, Any]:
    inner = {name: _merged(wire[name], value) for name, value in fields.items() if _both_objects(wire.get(name), value)}
    return {**wire, **fields, **inner}


def _both_objects(one: Any, other: Any) -> bool:
    return isinstance(one, Mapping) and isinstance(other, Mapping)
