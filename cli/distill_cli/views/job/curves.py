"""Curves of a training from rank 0's log, which has one line for each epoch."""

import csv
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

_EPOCH = re.compile(r"epoch (?P<epoch>\d+)/(?P<epochs>\d+)  (?P<rest>.*?)  ?(?P<seconds>[\d.]+)s$")
_MAP = "mAP50-95"


@dataclass(frozen=True)
class Curves:
    """Values by epoch. A resumed attempt has those from where it resumed."""

    epochs: list[int] = field(default_factory=list)
    losses: dict[str, list[float]] = field(default_factory=dict)
    """By component: box, cls, dis …; as long as `epochs`, but for components that begin later."""
    student_map: list[float] = field(default_factory=list)
    """mAP50-95 of the epochs that were validated."""
    seconds: list[float] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.epochs)


def curves(lines: Iterable[str]) -> Curves:
    """Read the lines that say an epoch is done; all others are skipped. An epoch that is repeated counts once."""
    found: dict[int, tuple[dict[str, float], float]] = {}
    for line in lines:
        match = _EPOCH.search(line)
        if match is None:
            continue
        words = match["rest"].split()
        values = dict(zip(words[::2], map(_number, words[1::2]), strict=False))
        found = {epoch: row for epoch, row in found.items() if epoch < int(match["epoch"])}
        found[int(match["epoch"])] = ({name: v for name, v in values.items() if v is not None}, float(match["seconds"]))
    names = dict.fromkeys(name for row, _ in found.values() for name in row if name != _MAP)
    return Curves(
        epochs=list(found),
        losses={name: [row[name] for row, _ in found.values() if name in row] for name in names},
        student_map=[row[_MAP] for row, _ in found.values() if _MAP in row],
        seconds=[seconds for _, seconds in found.values()],
    )


def curves_of_results(csv_text: str) -> Curves:
    """The curves of a whole job, from its results.csv, which has Ultralytics' columns."""
    rows = list(csv.DictReader(csv_text.splitlines()))
    columns = [name for name in (rows[0] if rows else {}) if re.fullmatch(r"train/\w+_loss", name)]
    values = {name: [_number(row[name] or "") for row in rows] for name in columns}
    scores = [next((row[name] for name in row if name.startswith("metrics/mAP50-95(")), None) for row in rows]
    return Curves(
        epochs=[int(float(row["epoch"])) for row in rows],
        losses={_component(name): [v for v in found if v is not None] for name, found in values.items()},
        student_map=[v for v in (_number(score or "") for score in scores) if v is not None],
    )


def _component(column: str) -> str:
    return column.removeprefix("train/").removesuffix("_loss")


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if abs(value) < float("inf") else None
