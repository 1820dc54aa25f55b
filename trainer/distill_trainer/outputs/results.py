"""results.csv and args.yaml in Ultralytics' formats."""

import csv
import io
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml

from distill_trainer.checkpoint.store.storage import atomic_write

_EPOCH = "epoch"


class ResultsCsv:
    """results.csv with Ultralytics' columns. Every write replaces the file atomically."""

    def __init__(self, path: Path, guard: Callable[[], None] = lambda: None) -> None:
        """`guard` is called before the file is replaced and can prevent that by raising."""
        self._path, self._guard = path, guard

    def append(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch; `row["epoch"]` counts from 1. Raises TrainerError.

        Rows of this and later epochs, written before a resume, are removed. New columns are empty in earlier rows.
        """
        kept = [old for old in self.rows() if float(old[_EPOCH]) < row[_EPOCH]]
        columns = list(dict.fromkeys([*(name for old in kept for name in old), *row]))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, {name: _number(value) for name, value in row.items()}])
        atomic_write(self._path, stream.getvalue().encode(), self._guard)

    def rows(self) -> list[dict[str, str]]:
        """All rows, oldest first; empty if there is no file."""
        if not self._path.exists():
            return []
        with open(self._path, newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


def write_args(path: Path, args: Mapping[str, Any]) -> None:
    """Write args.yaml. Raises TrainerError."""
    atomic_write(path, yaml.safe_dump(dict(args), sort_keys=False, allow_unicode=True).encode())


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
