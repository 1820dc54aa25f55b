"""Checks label files and reports the first invalid line. Ultralytics would silently drop the image instead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from distill_api.errors import Permanent
from distill_api.reasons import Reason

_BOX = 5
_POLYGON = 7
"""Columns of the smallest polygon: a class and three points."""


@dataclass(frozen=True)
class LabelRules:
    """What a valid line of a label file looks like."""

    task: str
    classes: int
    kpt_shape: tuple[int, int] | None = None
    single_cls: bool = False

    def problem(self, fields: list[str]) -> str | None:
        """What is wrong with the fields of a line; None if they are valid."""
        return self._class_problem(fields[0]) or _number_problem(fields) or self._column_problem(len(fields))

    def _class_problem(self, field: str) -> str | None:
        try:
            label = float(field)
        except ValueError:
            return f"class {field!r} is not a number"
        if not label.is_integer() or label < 0:
            return f"class {field} is not a whole number from 0"
        if not self.single_cls and label >= self.classes:
            return (
                f"class {int(label)} is out of range; the data set has classes 0 to {self.classes - 1};"
                " correct the line or add the class to names"
            )
        return None

    def _column_problem(self, count: int) -> str | None:
        polygon = count >= _POLYGON and count % 2 == 1
        keypoints = _BOX + self.kpt_shape[0] * self.kpt_shape[1] if self.kpt_shape is not None else None
        if self.task == "pose" and self.kpt_shape is not None:
            expected = f"{keypoints}: a class, a box and kpt_shape {list(self.kpt_shape)}"
            valid = count == keypoints
        elif self.task == "segment":
            expected, valid = f"{_POLYGON} or more: a class and the points of a polygon", polygon
        elif self.task == "obb":
            expected, valid = "9: a class and four corners", polygon
        else:
            expected, valid = f"{_BOX}: a class and a box", count in (_BOX, keypoints) or polygon
        return None if valid else f"{count} columns, but a label for {self.task} has {expected}"


def _number_problem(fields: list[str]) -> str | None:
    for field in fields[1:]:
        try:
            float(field)
        except ValueError:
            return f"{field!r} is not a number"
    return None


def first_problem(file: Path, rules: LabelRules) -> str | None:
    """The first problem of a label file, as `label file <file> line <n>: …`; None if it is valid or missing."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"label file {file} cannot be read: {error}"
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        problem = rules.problem(fields) if fields else None
        if problem is not None:
            return f"label file {file} line {number}: {problem}"
    return None


def check_label_files(files: Iterable[str], rules: LabelRules) -> None:
    """Raise Permanent(DatasetInvalid) for the first invalid file, naming file and line."""
    for file in files:
        message = first_problem(Path(file), rules)
        if message is not None:
            raise Permanent(Reason.DATASET_INVALID, message)
