"""What a run leaves for people, in the places and forms that Ultralytics users know."""

import copy
import csv
import hashlib
import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from distill_api.constants import JobFile
from distill_api.pod.run import RunConfig
from distill_trainer.checkpoint.store.storage import atomic_write

_EPOCH = "epoch"


@dataclass(frozen=True)
class RunFiles:
    """Where a job's files lie on the checkpoints volume."""

    root: Path

    @classmethod
    def of(cls, run: RunConfig) -> "RunFiles":
        """Files of the job that `run` belongs to: <checkpoints volume>/<job name>/."""
        return cls(Path(run.directories.checkpoints) / run.job)

    @property
    def checkpoints(self) -> Path:
        """Folder of resumable checkpoints."""
        return self.root / JobFile.CHECKPOINTS

    @property
    def weights(self) -> Path:
        """Folder of the student's weights."""
        return self.best.parent

    @property
    def best(self) -> Path:
        """Weights with the best validation fitness."""
        return self.root / JobFile.BEST

    @property
    def last(self) -> Path:
        """Weights of the last epoch."""
        return self.root / JobFile.LAST

    @property
    def results_csv(self) -> Path:
        """One row per epoch."""
        return self.root / JobFile.RESULTS

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard's event files."""
        return self.root / "tensorboard"

    @property
    def args_yaml(self) -> Path:
        """Arguments of the run, as Ultralytics writes them."""
        return self.root / "args.yaml"


class ResultsCsv:
    """results.csv with Ultralytics' columns. Every write replaces the file as a whole."""

    def __init__(self, path: Path, guard: Callable[[], None] = lambda: None) -> None:
        """`guard` is called before the file is replaced; what it raises prevents that."""
        self._path, self._guard = path, guard

    def append(self, row: Mapping[str, float]) -> None:
        """Add the row of an epoch, `row["epoch"]` from 1. Rows of this epoch and later ones, which a run before the
        resume had written, are replaced. A column that is new stays empty in earlier rows. Raises TrainerError.
        """
        kept = [old for old in self.rows() if float(old[_EPOCH]) < row[_EPOCH]]
        columns = list(dict.fromkeys([*(name for old in kept for name in old), *row]))
        stream = io.StringIO()
        writer = csv.DictWriter(stream, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, {name: _number(value) for name, value in row.items()}])
        atomic_write(self._path, stream.getvalue().encode(), self._guard)

    def rows(self) -> list[dict[str, str]]:
        """All rows, oldest first; empty when there is no file."""
        if not self._path.exists():
            return []
        with open(self._path, newline="") as file:
            return list(csv.DictReader(file))


def write_args(path: Path, args: Mapping[str, Any]) -> None:
    """Write args.yaml. Raises TrainerError."""
    atomic_write(path, yaml.safe_dump(dict(args), sort_keys=False, allow_unicode=True).encode())


def save_weights(
    path: Path,
    model: Any,
    *,
    train_args: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    guard: Callable[[], None] = lambda: None,
) -> str:
    """Write a plain Ultralytics checkpoint of `model` (the student's nn.Module: no teacher, no projector), which
    `YOLO(path)` loads, and return the file's SHA-256.

    As after Ultralytics' strip_optimizer: fp16, no gradients, no criterion, no optimizer. `model` itself is left as
    it is. The file appears as a whole or not at all; `guard` is called before it does. Raises TrainerError.
    """
    import torch
    from ultralytics import __version__

    student = _on_cpu(model)
    student.criterion = None
    if hasattr(student, "args"):
        student.args = dict(train_args)
    student.half().eval()
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    checkpoint = {
        "date": datetime.now().astimezone().isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "epoch": -1,
        "best_fitness": None,
        "model": student,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "scaler": None,
        "train_args": dict(train_args),
        "train_metrics": dict(metrics or {}),
        "train_results": {},
    }
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    content = stream.getvalue()
    atomic_write(path, content, guard)
    return hashlib.sha256(content).hexdigest()


def _on_cpu(model: Any) -> Any:
    import torch

    # Tensors are moved while they are copied, so that no second model ever lies on the device.
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        data = tensor.detach().to("cpu", copy=True)
        memo[id(tensor)] = (
            torch.nn.Parameter(data, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else data
        )
    if getattr(model, "criterion", None) is not None:
        memo[id(model.criterion)] = None
    return copy.deepcopy(model, memo)


def _number(value: float) -> str:
    return f"{value:.6g}" if isinstance(value, float) and math.isfinite(value) else str(value)
