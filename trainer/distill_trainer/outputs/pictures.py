"""Ultralytics' pictures of a run, under its names, drawn by its own functions in scratch and moved whole."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.outputs.fonts import same_font_everywhere
from distill_trainer.outputs.optional import OutputProblem


def draw_results(results_csv: Path) -> list[str]:
    """Draw results.png, the curves of results.csv, beside it."""
    from ultralytics.utils.plotting import plot_results

    def draw(folder: Path) -> None:
        copy = folder / "results.csv"  # Ultralytics draws every results*.csv of the folder, and beside it
        shutil.copyfile(results_csv, copy)
        plot_results(file=str(copy))

    return _drawn_into(results_csv.parent, draw, ["results.png"])


def draw_confusion(figures: ValidationFigures, folder: Path) -> list[str]:
    """Draw confusion_matrix.png and confusion_matrix_normalized.png of the whole validation split."""
    confusion = figures.confusion
    if confusion is None:
        raise OutputProblem("nothing was validated")

    def draw(scratch: Path) -> None:
        for normalize in (False, True):
            confusion.plot(save_dir=scratch, normalize=normalize)

    return _drawn_into(folder, draw, ["confusion_matrix.png", "confusion_matrix_normalized.png"])


def draw_curves(figures: ValidationFigures, folder: Path) -> list[str]:
    """Draw the precision-recall, F1, precision and recall curves: BoxPR_curve.png …, also of masks or keypoints."""
    metrics = figures.metrics
    if metrics is None:
        raise OutputProblem("nothing was validated")
    return _drawn_into(folder, lambda scratch: metrics.process(save_dir=scratch, plot=True), ["BoxPR_curve.png"])


def write_batches(figures: ValidationFigures, folder: Path) -> list[str]:
    """Write val_batch0_labels.jpg, val_batch0_pred.jpg … of the first three validation batches."""
    for name, content in figures.of_rank.pictures.items():
        atomic_write(folder / name, content)
    if figures.of_rank.problems:
        raise OutputProblem("; ".join(figures.of_rank.problems))
    return list(figures.of_rank.pictures)


def draw_labels(labels: Iterable[Mapping[str, Any]], names: Mapping[int, str], folder: Path) -> list[str]:
    """Draw labels.jpg: how often each class occurs in the training images, and where and how large its boxes are."""
    from ultralytics.utils.plotting import plot_labels

    known = list(labels)
    boxes = np.concatenate([label["bboxes"] for label in known], 0)
    classes = np.concatenate([label["cls"] for label in known], 0).squeeze(1)
    return _drawn_into(
        folder, lambda scratch: plot_labels(boxes, classes, names=dict(names), save_dir=scratch), ["labels.jpg"]
    )


def _drawn_into(folder: Path, draw: Callable[[Path], object], expected: list[str]) -> list[str]:
    """Names of the files that `draw` has made; all `expected` ones are among them, or OutputProblem."""
    with tempfile.TemporaryDirectory() as directory, same_font_everywhere(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mean of no epochs, a glyph that the font lacks
        scratch = Path(directory)
        draw(scratch)
        made = sorted(name for name in os.listdir(scratch) if name.endswith((".png", ".jpg")))
        # Ultralytics catches its own errors and says them in the log; what is left of them is a missing file.
        if missing := sorted(set(expected) - set(made)):
            raise OutputProblem(f"Ultralytics drew no {', '.join(missing)}; its own message is above")
        for name in made:
            atomic_write(folder / name, (scratch / name).read_bytes())
    return made
