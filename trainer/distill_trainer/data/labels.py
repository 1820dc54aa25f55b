"""Finds the first wrong line of a label file, where Ultralytics would drop the image and go on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distill_api.errors import Permanent
from distill_api.reasons import Reason

_BOX = 5
_POLYGON = 7
"""A class and at least three points."""


@dataclass(frozen=True)
class LabelRules:
    """What a line of a label file has to be."""

    task: str
    classes: int
    kpt_shape: tuple[int, int] | None = None
    single_cls: bool = False

    def wrong(self, fields: list[str]) -> str | None:
        """What is wrong with the fields of a line; None when they are right."""
        return self._wrong_class(fields[0]) or _wrong_number(fields) or self._wrong_columns(len(fields))

    def _wrong_class(self, field: str) -> str | None:
        try:
            label = float(field)
        except ValueError:
            return f"class {field!r} is not a number"
        if not label.is_integer() or label < 0:
            return f"class {field} is not a class number"
        if not self.single_cls and label >= self.classes:
            return (
                f"class {int(label)} is out of range, the data set has classes 0 to {self.classes - 1};"
                " correct the line or add the class to names"
            )
        return None

    def _wrong_columns(self, count: int) -> str | None:
        polygon = count >= _POLYGON and count % 2 == 1
        keypoints = _BOX + self.kpt_shape[0] * self.kpt_shape[1] if self.kpt_shape is not None else None
        if self.task == "pose" and self.kpt_shape is not None:
            wanted = f"{keypoints}: a class, a box and kpt_shape {list(self.kpt_shape)}"
            right = count == keypoints
        elif self.task == "segment":
            wanted, right = f"{_POLYGON} or more: a class and the points of a polygon", polygon
        elif self.task == "obb":
            wanted, right = "9: a class and four corners", polygon
        else:
            wanted, right = f"{_BOX}: a class and a box", count in (_BOX, keypoints) or polygon
        return None if right else f"{count} columns, but a label for {self.task} has {wanted}"


def _wrong_number(fields: list[str]) -> str | None:
    for field in fields[1:]:
        try:
            float(field)
        except ValueError:
            return f"{field!r} is not a number"
    return None


def wrong_line(file: Path, rules: LabelRules) -> str | None:
    """What is wrong with a label file, as `label file <file> line <n>: …`; None when it is right or missing."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"label file {file} cannot be read: {error}"
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        wrong = rules.wrong(fields) if fields else None
        if wrong is not None:
            return f"label file {file} line {number}: {wrong}"
    return None


def check_label_files(files: Iterable[str], rules: LabelRules) -> None:
    """Raise Permanent(DatasetInvalid) for the first wrong file, naming file and line."""
    for file in files:
        message = wrong_line(Path(file), rules)
        if message is not None:
            raise Permanent(Reason.DATASET_INVALID, message)
