"""The tables of `make chaos-cluster`."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

from benchmarks.chaos.cluster.checks import PHASES, Disruption
from benchmarks.chaos.cluster.disruptions import KINDS

WIDTH = 15


def by_kind(disruptions: Sequence[Disruption]) -> str:
    """The cost of each kind of disruption, and its reason in the status."""
    head = f"{'disturbance':16}{'times':>6}{'recovery p50':>14}{'max':>9}{'lost steps':>12}{'most':>6}  cause in status"
    lines = [head, "-" * len(head)]
    for name in [*KINDS, "all but that"]:
        made = [one for one in disruptions if name == one.kind or (name not in KINDS and one.causes)]
        if not made:
            continue
        lost = [one.lost_steps for one in made if one.lost_steps is not None]
        causes = ", ".join(sorted({one.cause for one in made if one.cause})) if name in KINDS else ""
        seconds = [one.recovery_seconds for one in made if one.recovery_seconds is not None]
        cells = f"{_median(seconds):>14}{_most(seconds):>9}"
        cost = f"{sum(lost):12}{max(lost):6}" if lost else f"{'-':>12}{'-':>6}"
        ends = causes or ("the attempt goes on" if name in KINDS else "")
        lines.append(f"{name:16}{len(made):6}{cells}{cost}  {ends}".rstrip())
    return "\n".join(lines)


def by_phase(disruptions: Sequence[Disruption]) -> str:
    """Phases from a disruption to the first new step: medians by kind, and median and maximum of all."""
    head = f"{'p50 seconds':16}" + "".join(f"{phase:>{WIDTH}}" for phase in PHASES) + f"{'all':>9}"
    lines = [head, "-" * len(head)]
    ended = [one for one in disruptions if one.recovery_seconds is not None and one.causes]
    for name in KINDS:
        made = [one for one in ended if one.kind == name]
        if made:
            lines.append(_row(name, made, statistics.median))
    if ended:
        lines += [_row("all", ended, statistics.median), _row("all, most", ended, max)]
    return "\n".join(lines)


def _row(name: str, made: Sequence[Disruption], of: object) -> str:
    assert callable(of)
    cells = "".join(f"{of([one.phases[phase] for one in made]):{WIDTH}.1f}" for phase in PHASES)
    return f"{name:16}{cells}{of([one.recovery_seconds for one in made]):9.1f}"


def _median(seconds: Iterable[float]) -> str:
    values = list(seconds)
    return f"{statistics.median(values):.1f} s" if values else "-"


def _most(seconds: Iterable[float]) -> str:
    return f"{max(values):.1f} s" if (values := list(seconds)) else "-"
