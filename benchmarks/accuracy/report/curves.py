"""Draws mAP50-95 by epoch: a thin line for each run, in its arm's colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.accuracy.rows import Row
from benchmarks.accuracy.run import Run


def draw(path: Path, runs: Sequence[Run], rows: Mapping[str, Row]) -> Path | None:
    """Draw the curves of the finished runs; None if no run has one."""
    arms: dict[str, list[tuple[float, ...]]] = {}
    for run in runs:
        if run.digest in rows and rows[run.digest].curve:
            arms.setdefault(run.arm, []).append(rows[run.digest].curve)
    if not arms:
        return None
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams |= {"svg.hashsalt": "accuracy", "svg.fonttype": "none"}
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, axes = pyplot.subplots(figsize=(7, 4))
    for number, (arm, curves) in enumerate(arms.items()):
        for first, curve in enumerate(curves):
            label = arm if first == 0 else None
            axes.plot(range(1, len(curve) + 1), curve, color=f"C{number % 10}", linewidth=1, label=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch")
    axes.set_ylabel("mAP50-95")
    axes.legend(fontsize="small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path
