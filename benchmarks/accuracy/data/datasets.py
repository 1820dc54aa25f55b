"""Generates a data set once into the work folder; the same bytes for the same fields."""

from __future__ import annotations

import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.accuracy.data.scenes import make_hard, make_print, printed
from benchmarks.accuracy.run import Data
from digits.generate import generate

CONFIG = "digits.yaml"
WITHOUT_LABELS = "unlabelled.txt"
LABELLED = 0.1
"""Part of the training images that has labels, where not all have; the others are in the list WITHOUT_LABELS."""

LOOKS: dict[str, Any] = {
    "digits": generate,
    "hard": partial(generate, make=make_hard),
    "print": partial(generate, load=printed, make=make_print),
}
"""digits: the example's. hard: small, overlapping, half hidden, blurred and noisy. print: printed digits on paper."""


def dataset(work: Path, data: Data) -> Path:
    """The folder of the data set, which is generated if it does not exist."""
    root = work / "data" / data.digest
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=f"{root.name}.", dir=root.parent))
        LOOKS[data.look](unfinished, data.task, {"train": data.train, "val": data.val}, data.imgsz, data.seed)
        images = sorted((unfinished / "images" / "train").iterdir())[round(data.train * LABELLED) :]
        lines = [f"./{image.relative_to(unfinished)}" for image in images]
        (unfinished / WITHOUT_LABELS).write_text("\n".join(lines) + "\n")
        try:
            unfinished.rename(root)
        except OSError:  # another lane was faster
            shutil.rmtree(unfinished)
    return root
