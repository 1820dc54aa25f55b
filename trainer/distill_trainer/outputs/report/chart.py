"""Draws charts as inline SVG, without scripts or other files. Colours are the page's, see style.py."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 400, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 12, 38
_COLOURS = 7
"""Classes c0 … c6 of the style sheet."""
_NAMES, _ROW, _NAME_LETTERS = 110, 22, 16
"""Dots: width of the names, height of a row, and letters of a name that fit."""
_MARKS = (
    '<circle class="dot c{colour}" cx="{x:.1f}" cy="{y}" r="5"/>',
    '<path class="ring c{colour}" d="M{x:.1f} {y}m-5.5 0l5.5 -5.5l5.5 5.5l-5.5 5.5z"/>',
    '<path class="tick c{colour}" d="M{x:.1f} {y}m0 -7v14"/>',
)
_MARK_LETTERS = ("●", "◇", "❘")
"""The marks in the legend."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    """(x, y) in order of x."""
    dashed: bool = False


def line_chart(title: str, lines: Sequence[Line], x_name: str) -> str:
    """The chart as a figure. Lines without points are left out; empty if no line has points."""
    drawn = [line for line in lines if line.points]
    if not drawn:
        return ""
    xs = [x for line in drawn for x, _ in line.points]
    ys = [y for line in drawn for _, y in line.points]
    left, right = min(xs), max(xs)
    if left == right:
        left, right = left - 0.5, right + 0.5
    ticks = nice_ticks(min(0.0, *ys), max(ys))
    bottom, top = ticks[0], ticks[-1]

    def x_of(x: float) -> float:
        return _LEFT + (x - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y_of(y: float) -> float:
        return _HEIGHT - _BOTTOM - (y - bottom) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = []
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<path class="grid" d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in whole_ticks(min(xs), max(xs)):
        parts.append(f'<text x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_name)}</text>')
    for number, line in enumerate(drawn):
        colour, dash = f"c{number % _COLOURS}", " dashed" if line.dashed else ""
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline class="line {colour}{dash}" points="{path}"/>')
        if len(line.points) == 1:
            x, y = line.points[0]
            parts.append(f'<circle class="dot {colour}" cx="{x_of(x):.1f}" cy="{y_of(y):.1f}" r="3"/>')
    said = f"{title} by {x_name}. " + " ".join(_in_words(line) for line in drawn)
    legend = [("- -" if line.dashed else "—", line.name) for line in drawn]
    return _figure(title, said, (_WIDTH, _HEIGHT), parts, legend)


def dot_plot(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    """A row of dots for each name, one for each series, as a figure; at most three series. Empty without rows."""
    series = list(dict.fromkeys(name for values in rows.values() for name in values))
    if not series:
        return ""
    ticks = nice_ticks(0.0, max(value for values in rows.values() for value in values.values()))
    height = _ROW * len(rows) + 26

    def x_of(value: float) -> float:
        return _NAMES + value / ticks[-1] * (_WIDTH - _NAMES - _RIGHT)

    parts = []
    for tick in ticks:
        parts.append(f'<path class="grid" d="M{x_of(tick):.1f} 4V{height - 20}"/>')
        parts.append(f'<text x="{x_of(tick):.1f}" y="{height - 5}" text-anchor="middle">{tick:g}</text>')
    for row, (name, values) in enumerate(rows.items()):
        y = 4 + _ROW * row + _ROW // 2
        short = name if len(name) <= _NAME_LETTERS else name[: _NAME_LETTERS - 1] + "…"
        parts.append(f'<text x="{_NAMES - 10}" y="{y + 4}" text-anchor="end">{escape(short)}</text>')
        parts.append(
            f'<path class="grid wide" d="M{x_of(min(values.values())):.1f} {y}H{x_of(max(values.values())):.1f}"/>'
        )
        for colour, one in reversed([*enumerate(series)]):  # the first series on top
            if one in values:
                parts.append(_MARKS[colour].format(colour=colour, x=x_of(values[one]), y=y))
    said = f"{title}, for {len(rows)} classes. The table has the same values."
    return _figure(title, said, (_WIDTH, height), parts, list(zip(_MARK_LETTERS, series, strict=False)))


def _figure(
    title: str, said: str, size: tuple[int, int], parts: Sequence[str], legend: Sequence[tuple[str, str]]
) -> str:
    names = "".join(
        f'<li class="c{number % _COLOURS}"><span aria-hidden="true">{mark}</span> {escape(name)}</li>'
        for number, (mark, name) in enumerate(legend)
    )
    return (
        f'<figure class="chart"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 {size[0]} {size[1]}" role="img" aria-label="{escape(said)}">{"".join(parts)}</svg>'
        f'<ul class="legend">{names}</ul></figure>'
    )


def _in_words(line: Line) -> str:
    (_, first), (_, last) = line.points[0], line.points[-1]
    return f"{line.name}: {first:.4g}." if first == last else f"{line.name}: from {first:.4g} to {last:.4g}."


def nice_ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Equally spaced round numbers that span low to high."""
    span = high - low or abs(high) or 1.0
    exponent = 10.0 ** math.floor(math.log10(span / wanted))
    step = next(factor * exponent for factor in (1, 2, 2.5, 5, 10) if factor * exponent >= span / wanted)
    first, last = math.floor(low / step + 1e-9), math.ceil((low + span) / step - 1e-9)
    return [round(number * step, 12) for number in range(first, last + 1)]


def whole_ticks(low: float, high: float, wanted: int = 8) -> list[float]:
    """At most about `wanted` whole numbers from low to high, including the first and the last."""
    step = max(1, math.ceil((high - low) / wanted))
    ticks = [float(number) for number in range(math.ceil(low), math.floor(high) + 1, step)]
    if ticks and high - ticks[-1] >= step / 2:
        ticks.append(float(math.floor(high)))
    elif ticks:
        ticks[-1] = float(math.floor(high))
    return ticks
