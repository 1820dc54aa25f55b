"""results.csv and args.yaml in Ultralytics' formats."""

import csv
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from distill_trainer.checkpoint.store.storage import atomic_write

_EPOCH = "epoch"


Row = Mapping[str, str]
"""A row of results.csv, by column."""


def read_rows(path: Path) -> list[Row]:
    """The rows of results.csv, oldest first; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def with_row(rows: Sequence[Row], row: Mapping[str, float]) -> list[Row]:
    """`rows` with the one of an epoch; `row["epoch"]` counts from 1.

    Rows of this and later epochs, written before a resume, are left out.
    """
    kept = [old for old in rows if float(old[_EPOCH]) < row[_EPOCH]]
    return [*kept, {name: _number(value) for name, value in row.items()}]


def results_csv(rows: Sequence[Row]) -> bytes:
    """results.csv with Ultralytics' columns. Columns that only later rows have are empty in earlier ones."""
    stream = io.StringIO()
    columns = list(dict.fromkeys(name for row in rows for name in row))
    writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue().encode()


def write_args(path: Path, args: Mapping[str, Any]) -> None:
    """Write args.yaml. Raises TrainerError."""
    atomic_write(path, yaml.safe_dump(dict(args), sort_keys=False, allow_unicode=True).encode())


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
