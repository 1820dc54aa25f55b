"""Draws a job's timeline: kinds of time as coloured bands, disruptions as lines, and steps below."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.chaos.cluster.checks import Disruption, answers
from benchmarks.chaos.cluster.watching import Sample, Seen


@dataclass(frozen=True)
class Kind:
    """A kind of time."""

    colour: str
    field: str
    """Field of status.goodput."""


KINDS = {
    "productive": Kind("#3f9c6e", "productiveSeconds"),
    "validation": Kind("#5b8fd6", "validationSeconds"),
    "checkpoint stall": Kind("#8458b3", "checkpointStallSeconds"),
    "lost work": Kind("#d1495b", "lostWorkSeconds"),
    "restart": Kind("#edae49", "restartSeconds"),
    "waiting for capacity": Kind("#a9b3bd", "waitingForCapacitySeconds"),
}
"""Kinds of time in the order of the legend. The colours differ in grey scale and for colour-blind people."""
CROWDED = 0.012
"""Labels closer than this share of the picture's width would overlap."""
STATES = {
    "starting": "restart",
    "stopping": "restart",
    "validating": "validation",
    "finishing": "validation",
    "committing": "checkpoint stall",
}
"""Kind of time by rank 0's state; other states are training."""


@dataclass(frozen=True)
class Band:
    """A stretch of time of one kind, in time.time()."""

    kind: str
    since: float
    until: float


def bands(seen: Seen, began: float, ended: float) -> list[Band]:
    """The job's whole timeline, without gaps."""
    found: list[Band] = []
    at = began
    for attempt in sorted(seen.attempts):
        placed = max((pod.placed for pod in seen.gang(attempt) if pod.placed), default=None)
        for kind, until in (("restart", seen.created.get(attempt)), ("waiting for capacity", placed)):
            if until is not None and until > at:
                found.append(Band(kind, at, until))
                at = until
        for first, then in pairwise(answers(seen, attempt)):
            if first.at > at:
                found.append(Band("restart", at, first.at))
            found.append(Band(_kind(first, seen), max(at, first.at), then.at))
            at = then.at
    if ended > at:
        found.append(Band("validation", at, ended))
    return _merged(found)


def _kind(sample: Sample, seen: Seen) -> str:
    if sample.made == 0 and sample.state not in ("validating", "finishing"):
        return "restart"
    resumed = seen.attempts.get(sample.attempt + 1, {}).get("resumedFromStep")
    if resumed is not None and sample.step > resumed:
        return "lost work"
    return STATES.get(sample.state, "productive")


def _merged(found: list[Band]) -> list[Band]:
    merged: list[Band] = []
    for band in found:
        if merged and merged[-1].kind == band.kind:
            band = Band(band.kind, merged.pop().since, band.until)
        merged.append(band)
    return merged


def draw(out: Path, seen: Seen, disruptions: list[Disruption], began: float, ended: float, title: str) -> None:
    """Write the picture."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (life, steps) = pyplot.subplots(
        2, 1, figsize=(17, 7.8), sharex=True, height_ratios=(1, 2.6), layout="constrained"
    )
    figure.suptitle(title, x=0.01, ha="left", fontsize=13)

    def minutes(at: float) -> float:
        return (at - began) / 60

    for band in bands(seen, began, ended):
        span = (minutes(band.since), minutes(band.until) - minutes(band.since))
        life.broken_barh([span], (0, 1), color=KINDS[band.kind].colour, linewidth=0)
    before = -math.inf
    for made in disruptions:
        at = minutes(made.at)
        for axes in (life, steps):
            axes.axvline(at, color="#222222", linewidth=0.8, linestyle=(0, (4, 3)))
        aside = 9 if at - before < CROWDED * minutes(ended) else 1
        before = at
        life.annotate(
            made.kind, (at, 1), xytext=(aside, 4), textcoords="offset points", rotation=62, fontsize=9,
            color="#111111" if made.causes else "#777777", annotation_clip=False,
        )  # fmt: skip
    _legend(life, seen.job["status"]["goodput"])
    life.set(ylim=(0, 1), yticks=[])
    life.spines[:].set_visible(False)
    life.tick_params(bottom=False)

    kept_colour = KINDS["productive"].colour
    for attempt in sorted(seen.attempts):
        samples = [sample for sample in answers(seen, attempt) if sample.resumed_from is not None]
        resumed = seen.attempts.get(attempt + 1, {}).get("resumedFromStep")
        times = [minutes(sample.at) for sample in samples]
        steps.plot(times, [sample.step for sample in samples], color="#222222", linewidth=1.8)
        kept = [sample.committed for sample in samples]
        if resumed is not None and times:  # the last commit, after rank 0's last response
            times, kept = [*times, times[-1]], [*kept, resumed]
            then = minutes(seen.answered.get(attempt + 1, ended))
            steps.plot([times[-1], then], [resumed] * 2, color=kept_colour, linewidth=0.8, linestyle=":")
        steps.plot(times, kept, color=kept_colour, drawstyle="steps-post")
    steps.plot([], [], color="#222222", linewidth=1.8, label="step")
    steps.plot([], [], color=kept_colour, label="committed step")
    steps.legend(frameon=False, loc="lower right")
    steps.set(xlabel="minutes since the job was created", ylabel="training steps", xlim=(0, minutes(ended)))
    steps.set_ylim(bottom=0)
    steps.spines[["top", "right"]].set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    pyplot.close(figure)


def _legend(axes: Any, goodput: dict[str, Any]) -> None:
    from matplotlib.patches import Patch

    seconds = {name: goodput[kind.field] for name, kind in KINDS.items()}
    whole = sum(seconds.values()) or 1.0
    shown = [
        Patch(color=kind.colour, label=f"{name} {seconds[name]:.0f} s, {seconds[name] / whole:.0%}")
        for name, kind in KINDS.items()
    ]
    axes.legend(handles=shown, ncols=6, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.02), fontsize=10)
