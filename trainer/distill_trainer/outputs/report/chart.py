"""Draws a line chart as inline SVG, without scripts or other files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 520, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 34, 40
_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b", "#17becf")
_LETTER = 6.4
"""Approximate width of a letter in the legend."""


@dataclass(frozen=True)
class Line:
    """One line of a chart."""

    name: str
    points: Sequence[tuple[float, float]]
    """(x, y) in order of x."""
    dashed: bool = False


def line_chart(lines: Sequence[Line], x_name: str, y_name: str) -> str:
    """The chart as an SVG element. Lines without points are left out; empty if no line has points."""
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

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
        f'height="{_HEIGHT}" font-family="sans-serif" font-size="11" role="img">'
    ]
    for tick in ticks:
        y = y_of(tick)
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    for tick in whole_ticks(min(xs), max(xs)):
        parts.append(f'<text x="{x_of(tick):.1f}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="middle">{tick:g}</text>')
    middle = _LEFT + (_WIDTH - _LEFT - _RIGHT) / 2
    parts.append(f'<text x="{middle:.1f}" y="{_HEIGHT - 6}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(
        f'<text x="12" y="{_HEIGHT / 2:.1f}" text-anchor="middle" '
        f'transform="rotate(-90 12 {_HEIGHT / 2:.1f})">{escape(y_name)}</text>'
    )
    at = float(_LEFT)
    for number, line in enumerate(drawn):
        colour = _COLOURS[number % len(_COLOURS)]
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        path = " ".join(f"{x_of(x):.1f},{y_of(y):.1f}" for x, y in line.points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if len(line.points) == 1:
            parts.append(f'<circle cx="{x_of(line.points[0][0]):.1f}" cy="{y_of(line.points[0][1]):.1f}" r="3" '
                         f'fill="{colour}"/>')  # fmt: skip
        parts.append(f'<line x1="{at:.1f}" x2="{at + 16:.1f}" y1="14" y2="14" stroke="{colour}" '
                     f'stroke-width="2"{dash}/>')  # fmt: skip
        parts.append(f'<text x="{at + 20:.1f}" y="18">{escape(line.name)}</text>')
        at += 20 + _LETTER * len(line.name) + 14
    return "".join([*parts, "</svg>"])


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
