"""Draws Ultralytics' plots of a run with Ultralytics' functions and file names, and writes them atomically."""

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
from distill_trainer.outputs.fonts import fixed_font
from distill_trainer.outputs.optional import OutputProblem


def draw_results(results_csv: Path) -> list[str]:
    """Draw results.png, the curves of results.csv, in the same folder."""
    from ultralytics.utils.plotting import plot_results

    def draw(folder: Path) -> None:
        copy = folder / "results.csv"  # Ultralytics plots all results*.csv files of the folder, into that folder
        shutil.copyfile(results_csv, copy)
        plot_results(file=str(copy))

    return _draw_files(results_csv.parent, draw, ["results.png"])


def draw_confusion(figures: ValidationFigures, folder: Path) -> list[str]:
    """Draw confusion_matrix.png and confusion_matrix_normalized.png for the whole validation split."""
    confusion = figures.confusion
    if confusion is None:
        raise OutputProblem("nothing was validated")

    def draw(scratch: Path) -> None:
        for normalize in (False, True):
            confusion.plot(save_dir=scratch, normalize=normalize)

    return _draw_files(folder, draw, ["confusion_matrix.png", "confusion_matrix_normalized.png"])


def draw_curves(figures: ValidationFigures, folder: Path) -> list[str]:
    """Draw the PR, F1, precision and recall curves of boxes, masks and keypoints: BoxPR_curve.png …"""
    metrics = figures.metrics
    if metrics is None:
        raise OutputProblem("nothing was validated")
    return _draw_files(folder, lambda scratch: metrics.process(save_dir=scratch, plot=True), ["BoxPR_curve.png"])


def write_batches(figures: ValidationFigures, folder: Path) -> list[str]:
    """Write val_batch0_labels.jpg, val_batch0_pred.jpg … for the first three validation batches."""
    for name, content in figures.of_rank.pictures.items():
        atomic_write(folder / name, content)
    if figures.of_rank.problems:
        raise OutputProblem("; ".join(figures.of_rank.problems))
    return list(figures.of_rank.pictures)


def draw_labels(labels: Iterable[Mapping[str, Any]], names: Mapping[int, str], folder: Path) -> list[str]:
    """Draw labels.jpg: the class counts of the training images, and the positions and sizes of their boxes."""
    from ultralytics.utils.plotting import plot_labels

    known = list(labels)
    boxes = np.concatenate([label["bboxes"] for label in known], 0)
    classes = np.concatenate([label["cls"] for label in known], 0).squeeze(1)
    return _draw_files(
        folder, lambda scratch: plot_labels(boxes, classes, names=dict(names), save_dir=scratch), ["labels.jpg"]
    )


def _draw_files(folder: Path, draw: Callable[[Path], object], expected: list[str]) -> list[str]:
    """Write the images that `draw` makes in a scratch folder to `folder`, and return their names.

    Raises OutputProblem if an `expected` one is missing.
    """
    with tempfile.TemporaryDirectory() as directory, fixed_font(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a mean of no epochs, a glyph that the font lacks
        scratch = Path(directory)
        draw(scratch)
        names = sorted(name for name in os.listdir(scratch) if name.endswith((".png", ".jpg")))
        # Ultralytics catches and logs its own errors, so that the only trace is a missing file.
        if missing := sorted(set(expected) - set(names)):
            raise OutputProblem(f"Ultralytics did not draw {', '.join(missing)}; see its message in the log")
        for name in names:
            atomic_write(folder / name, (scratch / name).read_bytes())
    return names
