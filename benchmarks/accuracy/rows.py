"""Raw figures: one CSV row for each finished run. Rows are only ever appended."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.accuracy.run import Run


@dataclass(frozen=True)
class Row:
    """The figures of a finished run."""

    arm: str
    seed: int
    data_seed: int
    epochs: int
    map: float
    """mAP50-95 of the last weights: one-to-many head with non-maximum suppression, as Ultralytics validates."""
    map50: float
    map_one2one: float | None
    """mAP50-95 of the one-to-one head, as it is deployed; None if the model has one head."""
    cpu_seconds: float
    """CPU time of the training, start-up and validation included; hardly depends on the load."""
    wall_seconds: float
    step_seconds: float
    """Wall time of the training steps alone."""
    peak_mb: int
    """Largest resident set of one process."""
    load: float
    """The machine's load average, the mean of start and end."""
    curve: tuple[float, ...]
    """mAP50-95 after each epoch, as the trainer measured it."""
    digest: str
    """Of the run: everything that the result depends on, but the code."""
    commit: str
    versions: str
    finished: str

    @classmethod
    def of(cls, run: Run, answer: Mapping[str, Any]) -> Row:
        """The row for a run and its answer.json."""
        return cls(
            arm=run.arm,
            seed=run.seed,
            data_seed=run.data.seed,
            epochs=run.epochs,
            digest=run.digest,
            commit=commit(),
            versions=versions(),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
            **dict(answer) | {"curve": tuple(answer["curve"])},
        )

    def wire(self) -> dict[str, str]:
        """The cells of the CSV."""
        cells = {name: "" if value is None else str(value) for name, value in vars(self).items()}
        for name in ("map", "map50", "map_one2one"):
            cells[name] = cells[name] and f"{float(cells[name]):.5f}"
        return cells | {"curve": " ".join(f"{value:.4f}" for value in self.curve)}

    @classmethod
    def read(cls, cells: Mapping[str, str]) -> Row:
        """The row in a line of the CSV. Raises ValueError or KeyError if it is none."""
        numbers = {"seed": int, "data_seed": int, "epochs": int, "peak_mb": int}
        decimals = ("map", "map50", "cpu_seconds", "wall_seconds", "step_seconds", "load")
        converted: dict[str, Any] = {name: kind(cells[name]) for name, kind in numbers.items()}
        converted |= {name: float(cells[name]) for name in decimals}
        converted["map_one2one"] = float(cells["map_one2one"]) if cells["map_one2one"] else None
        converted["curve"] = tuple(float(value) for value in cells["curve"].split())
        return cls(**{name: cells[name] for name in HEADER} | converted)


HEADER = tuple(each.name for each in fields(Row))


def read_rows(path: Path) -> list[Row]:
    """The rows of a CSV; none if it does not exist. Raises SystemExit if a line is damaged."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        lines = list(csv.DictReader(file))
    try:
        return [Row.read(line) for line in lines]
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"{path} has a line that is no result ({error!r}); correct it or delete it") from None


def append_row(path: Path, row: Row) -> None:
    """Append a row, as a whole and at once on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, HEADER, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row.wire())
        file.flush()
        os.fsync(file.fileno())


def by_digest(rows: Iterable[Row]) -> dict[str, Row]:
    """The last row of each run."""
    return {row.digest: row for row in rows}


def by_arm(runs: Iterable[Run], rows: Mapping[str, Row]) -> dict[str, dict[int, Row]]:
    """The rows of the runs that are finished, by arm and seed."""
    found: dict[str, dict[int, Row]] = {}
    for run in runs:
        if run.digest in rows:
            found.setdefault(run.arm, {})[run.seed] = rows[run.digest]
    return found


def commit() -> str:
    """The checkout's commit, with a + if files differ from it."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"]
    found = subprocess.run(command, capture_output=True, text=True)
    return found.stdout.strip() or "unknown"


def versions() -> str:
    """Versions of what the figures depend on, and the CPU."""
    found = " ".join(f"{name} {version(name)}" for name in ("ultralytics", "torch"))
    return f"{found} python {platform.python_version()} on {_cpu()}"


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
