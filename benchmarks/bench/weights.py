"""Measures how long the weights of an epoch hold training up: written in the background, and by the rank itself.

    python -m benchmarks.bench.weights [--saves 10] [--model yolo26s] [--folder DIR]

Both ways take turns; each save writes last.pt and best.pt, on the volume of --folder (default: a temporary folder).
Prints the medians and the median of the rounds' ratios (background / rank itself).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

NAMES = ("best.pt", "last.pt")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=10)
    parser.add_argument("--model", default="yolo26s")
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()

    from distill_trainer.checkpoint.checkpointer import Checkpointer
    from distill_trainer.models.weights import save_weights, weights_bytes
    from tests.support.models import build

    model = build(f"{args.model}.yaml")
    ignored = lambda *_: None  # noqa: E731
    names = ("committed", "stalled", "failed", "fell_back")
    events: Any = SimpleNamespace(**{f"checkpoint_{name}": ignored for name in names})
    seconds: dict[str, list[float]] = {"background": [], "rank itself": []}
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        paths = [Path(folder) / "weights" / name for name in NAMES]
        checkpointer = Checkpointer(
            Path(folder) / "checkpoints", uid="uid", attempt=1, keep=1, is_writer=True, events=events
        )

        def in_background() -> None:
            checkpointer.replace_files(dict.fromkeys(paths, weights_bytes(model, train_args={})))

        def by_the_rank() -> None:
            for path in paths:
                save_weights(path, model, train_args={})

        for number in range(args.saves + 1):
            for name, save in (("background", in_background), ("rank itself", by_the_rank)):
                began = time.perf_counter()
                save()
                if number:  # the first one grows the shared memory
                    seconds[name].append(time.perf_counter() - began)
                checkpointer.wait()
        checkpointer.close()
    ratios = [new / old for new, old in zip(*seconds.values(), strict=True)]
    for name, values in seconds.items():
        print(f"{name}: {1000 * statistics.median(values):.0f} ms")
    print(f"ratio {statistics.median(ratios):.2f} (rounds {min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
