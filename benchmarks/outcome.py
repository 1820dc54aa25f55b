"""The results of a run that must not depend on interruptions, for comparing runs."""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill_trainer.checkpoint.format import layout


@dataclass
class Outcome:
    """Everything that must not depend on how often a run was interrupted."""

    tensors: bytes
    """Tensors of the last checkpoint: weights, EMA, optimizer."""
    rows: list[dict[str, str]]
    """results.csv without its time column."""
    best: dict[str, Any] = field(repr=False)
    """Tensors of weights/best.pt by name."""

    @classmethod
    def of(cls, folder: Path, steps: int) -> Outcome:
        """Read the results in `folder`. Raises AssertionError if the job has not committed its last step."""
        import torch

        checkpoints = folder / "checkpoints"
        committed = layout.committed_steps(checkpoints)
        assert committed[-1:] == [steps], f"{folder} has committed steps {committed} instead of {steps}"
        with (folder / "results.csv").open() as file:
            rows = [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]
        best = torch.load(folder / "weights/best.pt", weights_only=False)["model"].state_dict()
        return cls((layout.readable(checkpoints, steps) / layout.TENSORS).read_bytes(), rows, best)

    def difference(self, other: Outcome) -> str | None:
        """The first part that differs; None if everything is bitwise equal."""
        import torch

        if self.tensors != other.tensors:
            return "state"
        if self.rows != other.rows:
            return "results.csv"
        same = self.best.keys() == other.best.keys() and all(
            torch.equal(value, other.best[name]) for name, value in self.best.items()
        )
        return None if same else "weights/best.pt"
