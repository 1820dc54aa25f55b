"""Curves of several jobs as one SVG file, without further libraries."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape

from distill_cli.views import text
from distill_cli.views.compare import CompareView

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#ff7f0e", "#9467bd", "#8c564b", "#17becf", "#7f7f7f")
_WIDTH, _HEIGHT, _LEFT, _TOP = 420, 240, 60, 50
Lines = Sequence[tuple[Sequence[int], Sequence[float]]]
"""Epochs and values of each job."""
_FONT = 'font-family="sans-serif" font-size="12"'


def svg(view: CompareView, now: datetime) -> str:
    """mAP and distillation loss by epoch, a line for each job, with the last values in the legend."""
    panels: list[tuple[str, Lines]] = [
        ("student mAP50-95", [(c.epochs[-len(c.student_map) :], c.student_map) for c in view.curves]),
        ("distillation loss", [_of(c.epochs, c.losses.get("dis", [])) for c in view.curves]),
    ]
    width = len(panels) * (_WIDTH + _LEFT) + 40
    height = _HEIGHT + _TOP + 60 + 18 * len(view.names)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" {_FONT}>',
        '<rect width="100%" height="100%" fill="white"/>',
    ]
    for index, (title, lines) in enumerate(panels):
        parts += _panel(title, lines, _LEFT + index * (_WIDTH + _LEFT))
    for index, name in enumerate(view.names):
        y = _TOP + _HEIGHT + 50 + 18 * index
        maps = view.curves[index].student_map
        last = f", mAP {text.score(maps[-1])}" if maps else ", no curve: its pods are gone"
        parts.append(f'<rect x="{_LEFT}" y="{y - 9}" width="18" height="4" fill="{_colour(index)}"/>')
        parts.append(f'<text x="{_LEFT + 26}" y="{y}">{escape(name)}{last}</text>')
    parts.append(f'<text x="{width - 10}" y="{height - 8}" text-anchor="end" fill="#888">{now:%Y-%m-%d %H:%M}Z</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _of(epochs: Sequence[int], values: Sequence[float]) -> tuple[Sequence[int], Sequence[float]]:
    """A component that began later belongs to the last epochs."""
    return (epochs[-len(values) :], values) if values else ([], [])


def _panel(title: str, lines: Lines, left: int) -> Iterator[str]:
    yield f'<text x="{left + _WIDTH / 2}" y="24" text-anchor="middle" font-weight="bold">{escape(title)}</text>'
    yield f'<rect x="{left}" y="{_TOP}" width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#ccc"/>'
    xs, ys = [x for epochs, _ in lines for x in epochs], [y for _, values in lines for y in values]
    if not ys:
        yield f'<text x="{left + 20}" y="{_TOP + _HEIGHT / 2}" fill="#888">no values</text>'
        return
    low, high, first, last = min(ys), max(ys), min(xs), max(xs)
    for value in (low, (low + high) / 2, high):
        y = _at(value, low, high)
        yield f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>'
        yield f'<line x1="{left}" x2="{left + _WIDTH}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>'
    yield f'<text x="{left}" y="{_TOP + _HEIGHT + 18}">epoch {first}</text>'
    yield f'<text x="{left + _WIDTH}" y="{_TOP + _HEIGHT + 18}" text-anchor="end">epoch {last}</text>'
    for index, (epochs, values) in enumerate(lines):
        span = max(1, last - first)
        points = " ".join(
            f"{left + _WIDTH * (x - first) / span:.1f},{_at(y, low, high):.1f}"
            for x, y in zip(epochs, values, strict=True)
        )
        if points:
            yield f'<polyline points="{points}" fill="none" stroke="{_colour(index)}" stroke-width="1.8"/>'


def _at(value: float, low: float, high: float) -> float:
    """The height of a value in the panel; a constant curve is in the middle."""
    share = (value - low) / (high - low) if high > low else 0.5
    return _TOP + _HEIGHT * (1 - share)


def _colour(index: int) -> str:
    return _COLOURS[index % len(_COLOURS)]
