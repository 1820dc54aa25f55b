"""What the pictures of a validation are drawn from, collected while it runs on all ranks.

The first batches are drawn where they are validated, by the rank that has them, because images are much larger than
the picture that is drawn of them.
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

from distill_trainer.outputs.fonts import same_font_everywhere
from distill_trainer.outputs.optional import try_output

PICTURED_BATCHES = 3
"""Batches of the whole split that are drawn, as in Ultralytics."""


@dataclass
class RankFigures:
    """What one rank adds."""

    confusion: NDArray[np.float64] | None = None
    """Counts [predicted, true], background last, of this rank's images."""
    pictures: dict[str, bytes] = field(default_factory=dict)
    """Files by Ultralytics' names, such as val_batch0_pred.jpg."""
    problems: list[str] = field(default_factory=list)
    """Why a picture is missing."""


class ValidationFigures:
    """Give a new one to `validate`; afterwards it holds, on every rank, what there is of all ranks."""

    def __init__(self) -> None:
        self.of_rank = RankFigures()
        """This rank's own until `merge`, then everybody's."""
        self.confusion: ConfusionMatrix | None = None
        """Of all images."""
        self.metrics: DetMetrics | None = None
        """With the matches of all images."""

    def add_batch(self, validator: Any, number: int, batch: dict[str, Any], found: list[dict[str, Tensor]]) -> None:
        """A batch is validated; `number` counts the batches of the whole split."""
        self.of_rank.confusion = validator.confusion_matrix.matrix
        if number >= PICTURED_BATCHES:
            return
        name = f"val_batch{number}"
        # Ultralytics' drawing changes what it is given.
        own = [dict(prediction) for prediction in found]
        for kind, draw in (
            ("labels", lambda: validator.plot_val_samples(_copied(batch), number)),
            ("pred", lambda: validator.plot_predictions(_copied(batch), own, number)),
        ):
            picture, problem = try_output(f"{name}_{kind}.jpg", partial(_drawn, validator, f"{name}_{kind}.jpg", draw))
            if picture is not None:
                self.of_rank.pictures[f"{name}_{kind}.jpg"] = picture
            if problem is not None:
                self.of_rank.problems.append(f"{name}_{kind}.jpg: {problem}")

    def merge(self, all_ranks: Sequence[RankFigures | None], validator: Any, matches: dict[str, list[Any]]) -> None:
        """The figures of all ranks are here, and the matches of all images in order."""
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


def _copied(batch: dict[str, Any]) -> dict[str, Any]:
    return {key: value.clone() if isinstance(value, Tensor) else value for key, value in batch.items()}


def _drawn(validator: Any, name: str, draw: Callable[[], None]) -> bytes:
    kept = validator.save_dir
    with tempfile.TemporaryDirectory() as folder, _in_this_thread(), same_font_everywhere():
        validator.save_dir = Path(folder)
        try:
            draw()
        finally:
            validator.save_dir = kept
        return (Path(folder) / name).read_bytes()


@contextmanager
def _in_this_thread() -> Iterator[None]:
    """Ultralytics' validators start a thread for each picture and forget it: nobody would know when it is drawn, or
    that it failed.
    """
    modules: tuple[Any, ...] = (detect_val, obb_val)
    for module in modules:
        module.plot_images = partial(plot_images, threaded=False)
    try:
        yield
    finally:
        for module in modules:
            module.plot_images = plot_images
