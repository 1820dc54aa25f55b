"""Draws a panel's content into its place, by the panel's type."""

import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle, Wedge

from dashboards.preview.page import DIM, DOTS_PER_INCH, FAINT, SMALL, TEXT, Canvas
from dashboards.preview.source import Named, Source
from dashboards.preview.texts import Panel, formatted, mapped, overrides, shown, threshold_color

Draw = Callable[[Canvas, Panel, Source], None]


def stat(canvas: Canvas, panel: Panel, source: Source) -> None:
    """The last value, large, over the line of all of them."""
    spark = panel["options"]["graphMode"] == "area"
    found = source.lines(panel) if spark else [named for answers in source.numbers(panel) for named in answers]
    if not found:
        _nothing(canvas, panel)
        return
    value = found[0].series.values[-1]
    text, tint = _text(value, panel)
    if spark and len(found[0].series.values) > 1:
        axes = canvas.axes(0, 0, 1, 0.42)
        axes.axis("off")
        values = np.array(found[0].series.values)
        low, high = min(0.0, np.nanmin(values)), np.nanmax(values)
        axes.set_ylim(low, high + 0.15 * (high - low) + 1e-9)
        axes.set_xlim(source.window.start, source.window.end)
        axes.plot(found[0].series.times, values, color=tint, linewidth=1.2)
        axes.fill_between(found[0].series.times, values, low, color=tint, alpha=0.18, linewidth=0)
    size = min(28.0, 0.95 * canvas.width / max(len(text), 4))
    canvas.text(0.5, 0.56 if spark else 0.46, text, size=size, color=tint, weight="bold", ha="center", va="center")


def gauge(canvas: Canvas, panel: Panel, source: Source) -> None:
    """A share on a half circle."""
    found = [named for answers in source.numbers(panel) for named in answers]
    if not found or math.isnan(found[0].series.values[-1]):
        _nothing(canvas, panel)
        return
    value = found[0].series.values[-1]
    text, tint = _text(value, panel)
    axes = canvas.axes(0.08, 0.02, 0.84, 0.78)
    axes.axis("off")
    axes.set_aspect("equal")
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-0.28, 1.05)
    angle = 180 - 180 * min(max(value, 0.0), 1.0)
    axes.add_patch(Wedge((0, 0), 1, 0, 180, width=0.26, color=FAINT))
    axes.add_patch(Wedge((0, 0), 1, angle, 180, width=0.26, color=tint))
    axes.text(0, 0.0, text, color=tint, fontsize=19, weight="bold", ha="center", va="bottom")


def timeseries(canvas: Canvas, panel: Panel, source: Source) -> None:
    """Lines, areas or bars over time, with the annotations of the board."""
    found = source.lines(panel)
    custom = panel["fieldConfig"]["defaults"]["custom"]
    unit = panel["fieldConfig"]["defaults"]["unit"]
    entries = []
    left = 58 / canvas.width
    rows = canvas.legend_rows([shown(panel, named.name, 0)[0] for named in found])
    axes = canvas.axes(left, (26 + 17 * rows) / canvas.height, 1 - left - 10 / canvas.width, 0, top=34)
    axes.set_xlim(source.window.start, source.window.end)
    step = source.step(panel)
    bottom: dict[float, float] = {}
    stacked = (custom.get("stacking") or {}).get("mode") == "normal"
    for index, named in enumerate(found):
        name, tint = shown(panel, named.name, index)
        dashed = "custom.lineStyle" in overrides(panel, named.name)
        times, values = np.array(named.series.times), np.array(named.series.values)
        base = np.array([bottom.get(t, 0.0) if stacked else 0.0 for t in times])
        if stacked:
            bottom |= dict(zip(times, base + np.nan_to_num(values), strict=True))
        if custom["drawStyle"] == "bars":
            axes.bar(times, values, width=0.8 * step, bottom=base, color=tint, alpha=0.85, linewidth=0)
        else:
            gap_times, gap_values, gap_base = _with_gaps(times, values, base, step)
            axes.plot(gap_times, gap_base + gap_values, color=tint, linewidth=0.8 if stacked else 1.5,
                      linestyle=(0, (5, 4)) if dashed else "-")  # fmt: skip
            if stacked or (len(found) == 1 and custom.get("scaleDistribution", {}).get("type") != "log"):
                axes.fill_between(gap_times, gap_base, gap_base + gap_values, color=tint,
                                  alpha=0.65 if stacked else 0.12, linewidth=0)  # fmt: skip
            alone = _alone(gap_values)
            axes.plot(gap_times[alone], (gap_base + gap_values)[alone], "o", markersize=3, color=tint)
        finite = values[np.isfinite(values)]
        entries.append((name, tint, formatted(float(finite[-1]), unit) if len(finite) else "–"))
    _style(axes, panel, custom, unit, source)
    canvas.marks(axes)
    if found:
        canvas.legend(entries, rows)
    else:
        _nothing(canvas, panel)


def bargauge(canvas: Canvas, panel: Panel, source: Source) -> None:
    """A bar for each series."""
    found = [named for answers in source.numbers(panel) for named in answers]
    found = [named for named in found if math.isfinite(named.series.values[-1])]
    if not found:
        _nothing(canvas, panel)
        return
    unit = panel["fieldConfig"]["defaults"]["unit"]
    most = panel["fieldConfig"]["defaults"].get("max") or max(named.series.values[-1] for named in found) or 1.0
    names = [shown(panel, named.name, index)[0] for index, named in enumerate(found)]
    left = min(0.42, (16 + 7.2 * max(len(name) for name in names)) / canvas.width)
    axes = canvas.axes(left, 12 / canvas.height, 1 - left - 96 / canvas.width, 0, top=36)
    axes.axis("off")
    axes.set_xlim(0, most)
    axes.set_ylim(len(found) - 0.5 if len(found) > 3 else 2.5, -0.5)
    for index, named in enumerate(found):
        value = named.series.values[-1]
        fixed = overrides(panel, named.name).get("color")
        tint = shown(panel, named.name, index)[1] if fixed else threshold_color(value, panel)
        axes.add_patch(Rectangle((0, index - 0.32), most, 0.64, color=FAINT, linewidth=0))
        axes.add_patch(Rectangle((0, index - 0.32), value, 0.64, color=tint, alpha=0.85, linewidth=0))
        label = axes.annotate(names[index], (0, index), (-8, 0), textcoords="offset points", color=TEXT, fontsize=SMALL)
        label.set(ha="right", va="center")
        told = axes.annotate(formatted(value, unit), (most, index), (6, 0), textcoords="offset points", color=tint)
        told.set(fontsize=SMALL + 1, va="center", weight="bold")


def state_timeline(canvas: Canvas, panel: Panel, source: Source) -> None:
    """A line of coloured states for each series."""
    found = sorted(source.lines(panel), key=lambda named: named.series.times[0])
    if not found:
        _nothing(canvas, panel)
        return
    mappings = panel["fieldConfig"]["defaults"]["mappings"]
    left = (16 + 7.2 * max(len(named.name) for named in found)) / canvas.width
    axes = canvas.axes(left, 28 / canvas.height, 1 - left - 10 / canvas.width, 0, top=34)
    axes.set_xlim(source.window.start, source.window.end)
    axes.set_ylim(len(found) - 0.5, -0.5)
    step = source.step(panel)
    for row, named in enumerate(found):
        for start, last, value in _runs(named, step):
            end = min(last, source.window.end)
            text, tint = mapped(value, mappings) or (f"{value:g}", DIM)
            axes.add_patch(Rectangle((start, row - 0.4), end - start, 0.8, color=tint, alpha=0.8, linewidth=0))
            wide = (end - start) / (source.window.end - source.window.start) * (1 - left) * canvas.width
            if wide > 7.5 * len(text):
                axes.text((start + end) / 2, row, text, color="#111217", fontsize=SMALL, ha="center", va="center",
                          weight="bold")  # fmt: skip
    _time_axis(axes, source)
    axes.set_yticks(range(len(found)), [named.name for named in found])
    axes.grid(visible=False)


def table(canvas: Canvas, panel: Panel, source: Source) -> None:
    """A line for each combination of labels, a column for each query."""
    rows: dict[tuple[str, ...], dict[int, float]] = {}
    for column, answers in enumerate(source.numbers(panel)):
        for named in answers:
            key = tuple(named.series.labels[label] for label in ("namespace", "distilljob"))
            rows.setdefault(key, {})[column] = named.series.values[-1]
    (organized,) = (t["options"] for t in panel["transformations"] if t["id"] == "organize")
    headers = [
        organized["renameByName"][name] for name in sorted(organized["indexByName"], key=organized["indexByName"].get)
    ]
    axes = canvas.axes(12 / canvas.width, 8 / canvas.height, 1 - 24 / canvas.width, 0, top=34)
    axes.axis("off")
    axes.set_xlim(0, len(headers))
    axes.set_ylim(max(len(rows), 5) + 0.6, -0.6)
    for column, header in enumerate(headers):
        axes.text(column, 0, header, color="#6E9FFF", fontsize=SMALL, weight="bold", va="center")
    for line, (key, values) in enumerate(sorted(rows.items()), start=1):
        axes.axhline(line - 0.5, color=FAINT, linewidth=0.8)
        for column, header in enumerate(headers):
            text, tint = (key[column], "#6E9FFF" if header == "Job" else TEXT) if column < 2 else _cell(
                values.get(column - 2, math.nan), panel, header)  # fmt: skip
            axes.text(column, line, text, color=tint, fontsize=SMALL + 0.5, va="center")


def tick_seconds(span: float, inches: float) -> int:
    """Seconds between the ticks of an axis of `inches` that shows `span` seconds; below a minute, labels are longer."""
    sizes = (10, 20, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 21600)
    return next((size for size in sizes if span / size <= inches * (0.8 if size < 60 else 1.6)), sizes[-1])


DRAWINGS: Mapping[str, Draw] = {
    "stat": stat,
    "gauge": gauge,
    "timeseries": timeseries,
    "bargauge": bargauge,
    "state-timeline": state_timeline,
    "table": table,
}


def _cell(value: float, panel: Panel, header: str) -> tuple[str, str]:
    properties = overrides(panel, header)
    if math.isnan(value):
        return "", TEXT
    return mapped(value, properties.get("mappings") or []) or (formatted(value, properties.get("unit", "short")), TEXT)


def _text(value: float, panel: Panel) -> tuple[str, str]:
    defaults = panel["fieldConfig"]["defaults"]
    return mapped(value, defaults.get("mappings") or []) or (
        formatted(value, defaults["unit"]),
        threshold_color(value, panel),
    )


def _nothing(canvas: Canvas, panel: Panel) -> None:
    text = panel["fieldConfig"]["defaults"].get("noValue") or "No data"
    size = 22 if len(text) < 3 else SMALL + 1
    canvas.text(0.5, 0.45, text, size=size, color=DIM, ha="center", va="center")


def _with_gaps(times: Any, values: Any, base: Any, step: float) -> tuple[Any, Any, Any]:
    """The same with a missing value wherever points are missing, so that no line joins them."""
    holes = np.flatnonzero(np.diff(times) > 1.5 * step) + 1
    return (np.insert(times, holes, times[holes]), np.insert(values, holes, np.nan), np.insert(base, holes, 0.0))


def _alone(values: Any) -> Any:
    """Whether no line joins a value to another."""
    around = np.concatenate(([np.nan], values, [np.nan]))
    return np.isfinite(values) & ~np.isfinite(around[:-2]) & ~np.isfinite(around[2:])


def _runs(named: Named, step: float) -> list[tuple[float, float, float]]:
    """Start, end and value of what stays the same."""
    runs: list[tuple[float, float, float]] = []
    for moment, value in zip(named.series.times, named.series.values, strict=True):
        if runs and runs[-1][2] == value and moment - runs[-1][1] <= 1.5 * step:
            runs[-1] = (runs[-1][0], moment + step, value)
        else:
            runs.append((moment, moment + step, value))
    return runs


def _style(axes: Axes, panel: Panel, custom: Mapping[str, Any], unit: str, source: Source) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    if custom.get("scaleDistribution", {}).get("type") == "log":
        axes.set_yscale("log")
        axes.minorticks_off()
    else:
        low, high = axes.get_ylim()
        low = defaults.get("min", low)
        axes.set_ylim(low, defaults.get("max", max(high, low + 1e-9)))
        axes.locator_params(axis="y", nbins=5)
    axes.yaxis.set_major_formatter(lambda value, _: formatted(value, unit))
    _time_axis(axes, source)


def _time_axis(axes: Axes, source: Source) -> None:
    start, end = source.window.start, source.window.end
    wide = axes.get_window_extent().width / DOTS_PER_INCH
    size = tick_seconds(end - start, wide)
    ticks = np.arange(math.ceil(start / size) * size, end, size)
    clock = "%H:%M:%S" if size < 60 else "%H:%M"
    axes.set_xticks(ticks, [time.strftime(clock, time.gmtime(tick)) for tick in ticks])
    axes.tick_params(colors=DIM, labelsize=SMALL - 1, length=0)
    axes.grid(visible=True, color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
