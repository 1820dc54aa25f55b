"""Finds the first wrong line of a label file, where Ultralytics would drop the image and go on."""

from collections.abc import Iterable
from pathlib import Path

from distill_api.constants import Reason
from distill_trainer.errors import Permanent


def wrong_line(file: Path, classes: int, *, single_cls: bool = False) -> str | None:
    """What is wrong with a label file's classes, as `<file> line <n>: …`; None when they are right or it is missing."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        return f"label file {file} cannot be read: {error}"
    for number, line in enumerate(lines, start=1):
        fields = line.split()
        if not fields:
            continue
        try:
            label = float(fields[0])
        except ValueError:
            return f"label file {file} line {number}: class {fields[0]!r} is not a number"
        if not label.is_integer() or label < 0:
            return f"label file {file} line {number}: class {fields[0]} is not a class number"
        if not single_cls and label >= classes:
            return (
                f"label file {file} line {number}: class {int(label)} is out of range,"
                f" the data set has classes 0 to {classes - 1}; correct the line or add the class to names"
            )
    return None


def check_label_files(files: Iterable[str], classes: int, *, single_cls: bool = False) -> None:
    """Raise Permanent(DatasetInvalid) for the first file with a wrong class, naming file and line."""
    for file in files:
        message = wrong_line(Path(file), classes, single_cls=single_cls)
        if message is not None:
            raise Permanent(Reason.DATASET_INVALID, message)
