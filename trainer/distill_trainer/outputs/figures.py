"""Collects the data for the plots of a validation while it runs on all ranks.

The first batches are plotted by the rank that validates them, because images are much larger than their plots.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from ultralytics.models.yolo.detect import val as detect_val
from ultralytics.models.yolo.obb import val as obb_val
from ultralytics.utils.metrics import ConfusionMatrix, DetMetrics
from ultralytics.utils.plotting import plot_images

from distill_trainer.outputs.fonts import fixed_font
from distill_trainer.outputs.optional import try_output

PLOTTED_BATCHES = 3
"""Number of plotted batches of the whole split, as in Ultralytics."""


@dataclass
class RankFigures:
    """The data of one rank."""

    confusion: NDArray[np.float64] | None = None
    """Counts [predicted, true], background last, of this rank's images."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Image files by Ultralytics' names, such as val_batch0_pred.jpg."""
    problems: list[str] = field(default_factory=list)
    """Why a picture is missing."""


class ValidationFigures:
    """Pass a new one to `validate`; afterwards rank 0's has the data of all ranks."""

    def __init__(self) -> None:
        self.of_rank = RankFigures()
        """This rank's data; on rank 0, after `merge`, that of all ranks."""
        self.confusion: ConfusionMatrix | None = None
        """Confusion matrix of all images, after `merge`."""
        self.metrics: DetMetrics | None = None
        """Ultralytics' metrics of all images, after `merge`."""

    def add_batch(self, validator: Any, number: int, batch: dict[str, Any], found: list[dict[str, Tensor]]) -> None:
        """Add a validated batch; `number` is its index in the whole split."""
        self.of_rank.confusion = validator.confusion_matrix.matrix
        if number >= PLOTTED_BATCHES:
            return
        name = f"val_batch{number}"
        # Ultralytics' plotting functions modify their arguments.
        predictions = [dict(prediction) for prediction in found]
        for file, plot in (
            (f"{name}_labels.jpg", lambda: validator.plot_val_samples(_copy(batch), number)),
            (f"{name}_pred.jpg", lambda: validator.plot_predictions(_copy(batch), predictions, number)),
        ):
            picture, problem = try_output(file, partial(_plot, validator, file, plot))
            if picture is not None:
                self.of_rank.pictures[file] = picture
            if problem is not None:
                self.of_rank.problems.append(f"{file}: {problem}")

    def merge(self, all_ranks: Sequence[RankFigures | None], validator: Any, matches: dict[str, list[Any]]) -> None:
        """Merge the data of all ranks, on rank 0. `matches`: the matches of all images, in order."""
        known = [of_rank for of_rank in all_ranks if of_rank is not None]
        counts = [of_rank.confusion for of_rank in known if of_rank.confusion is not None]
        self.confusion = validator.confusion_matrix
        self.confusion.matrix = np.sum(counts, axis=0)
        self.metrics = validator.metrics
        self.metrics.stats = matches
        self.of_rank = RankFigures(
            self.confusion.matrix,
            dict(sorted(item for of_rank in known for item in of_rank.pictures.items())),
            [problem for of_rank in known for problem in of_rank.problems],
        )


def _copy(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in batch.items()}


def _plot(validator: Any, name: str, plot: Callable[[], None]) -> bytes:
    save_dir = validator.save_dir
    with tempfile.TemporaryDirectory() as folder, _in_this_thread(), fixed_font():
        validator.save_dir = Path(folder)
        try:
            plot()
        finally:
            validator.save_dir = save_dir
        return (Path(folder) / name).read_bytes()


@contextmanager
def _in_this_thread() -> Iterator[None]:
    """Make Ultralytics' validators plot in this thread: they start threads that they never join."""
    modules: tuple[Any, ...] = (detect_val, obb_val)
    for module in modules:
        module.plot_images = partial(plot_images, threaded=False)
    try:
        yield
    finally:
        for module in modules:
            module.plot_images = plot_images
