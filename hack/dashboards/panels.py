"""Panels in the project's look: Grafana's foundation SDK with one default for everything."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from grafana_foundation_sdk.builders import bargauge, common, dashboard, gauge, prometheus, stat, statetimeline, table
from grafana_foundation_sdk.builders import timeseries as lines
from grafana_foundation_sdk.models import common as look
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from dashboards.promql import PHASES, Query
from distill_api.constants import Phase

DATA_SOURCE: Final = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
GREEN, YELLOW, ORANGE, RED = "green", "#EAB839", "orange", "red"

Panel = Any
"""A builder of one of the SDK's panels; they have no common class with the methods that are used here."""

KINDS: Final = {
    "productive": ("productive", "#73BF69"),
    "validation": ("validation", "#B877D9"),
    "checkpoint_stall": ("checkpoint stall", "#FADE2A"),
    "restart": ("restart", "#FF9830"),
    "lost_work": ("lost work", "#F2495C"),
    "waiting_for_capacity": ("waiting for nodes", "#5794F2"),
}
"""Kinds of a job's time: what they are called for people, and their colours."""
RANK_PHASES: Final = {
    "data": ("data", "#F2495C"),
    "teacher": ("teacher", "#B877D9"),
    "forward": ("forward", "#5794F2"),
    "backward": ("backward", "#73BF69"),
    "optimizer": ("optimizer", "#FADE2A"),
    "validation": ("validation", "#8AB8FF"),
    "checkpoint": ("checkpoint", "#FF9830"),
    "start": ("start", "#808080"),
}
PHASE_COLORS: Final = {
    Phase.PENDING: "#808080",
    Phase.QUEUED: "#8F3BB8",
    Phase.STARTING: "#5794F2",
    Phase.RUNNING: "#73BF69",
    Phase.RECOVERING: "#FF9830",
    Phase.SUSPENDED: "#6E7F96",
    Phase.SUCCEEDED: "#37872D",
    Phase.FAILED: "#F2495C",
}

Names = Mapping[str, tuple[str, str]]
Limits = Sequence[tuple[float | None, str]]


def titled(panel: Panel, title: str, description: str, queries: Iterable[Query], *, unit: str, instant: bool) -> Panel:
    """What every panel has."""
    panel.title(title).description(description).datasource(DATA_SOURCE).unit(unit)
    for number, query in enumerate(queries):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(chr(ord("A") + number))
        panel.with_target((target.instant() if instant else target.range()).datasource(DATA_SOURCE))
    return panel


def number(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    limits: Limits = ((None, GREEN),),
    width: int = 3,
    mappings: Sequence[model.ValueMapping] = (),
    sparkline: bool = True,
    height: int = 4,
    none: str = "–",
) -> Panel:
    """A big number, with its course behind it. `none` stands where there is no value."""
    panel = titled(stat.Panel(), title, description, queries, unit=unit, instant=not sparkline)
    shown = look.BigValueGraphMode.AREA if sparkline else look.BigValueGraphMode.NONE
    panel.graph_mode(shown).color_mode(look.BigValueColorMode.VALUE).reduce_options(_last()).no_value(none)
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    return panel.mappings(list(mappings)).thresholds(_thresholds(limits)).span(width).height(height)


def dial(title: str, description: str, query: Query, *, limits: Limits, width: int = 3, height: int = 4) -> Panel:
    """A share from 0 to 1 on a dial."""
    panel = titled(gauge.Panel(), title, description, [query], unit="percentunit", instant=True)
    panel.min(0).max(1).reduce_options(_last()).thresholds(_thresholds(limits)).no_value("–")
    return panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS)).span(width).height(height)


def graph(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "short",
    width: int = 8,
    stack: bool = False,
    bars: bool = False,
    low: float | None = 0,
    high: float | None = None,
    names: Names | None = None,
    dashed: str = "",
    logarithmic: bool = False,
    interval: str = "",
    none: str = "",
) -> Panel:
    """Lines over time. `stack`: as areas on each other; `names`: words and colours by series; `dashed`: a series that
    is a limit or an aim; `none`: what is shown without data.
    """
    panel = titled(lines.Panel(), title, description, queries, unit=unit, instant=False)
    panel.draw_style(look.GraphDrawStyle.BARS if bars else look.GraphDrawStyle.LINE)
    panel.line_width(1 if stack or bars else 2).fill_opacity(70 if stack or bars else 10)
    panel.show_points(look.VisibilityMode.NEVER).span(width).height(8).thresholds(_thresholds(((None, GREEN),)))
    panel.tooltip(common.VizTooltipOptions().mode(look.TooltipDisplayMode.MULTI).sort(look.SortOrder.DESCENDING))
    legend = common.VizLegendOptions().show_legend(True).placement(look.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(look.LegendDisplayMode.LIST).calcs(["lastNotNull"]))
    if stack:
        panel.stacking(common.StackingConfig().mode(look.StackingMode.NORMAL).group("A"))
    if logarithmic:
        panel.scale_distribution(common.ScaleDistributionConfig().type(look.ScaleDistribution.LOG).log(10))
    elif low is not None:
        panel.min(low)
    if high is not None:
        panel.max(high)
    if interval:
        panel.interval(interval)
    if none:
        panel.no_value(none)
    if dashed:
        style = [model.DynamicConfigValue("custom.lineStyle", {"fill": "dash", "dash": [8, 6]})]
        panel.override_by_name(dashed, [*style, model.DynamicConfigValue("custom.fillOpacity", 0)])
    return _named(panel, names)


def bars(
    title: str,
    description: str,
    *queries: Query,
    unit: str = "s",
    width: int = 8,
    names: Names | None = None,
    limits: Limits = ((None, "blue"),),
    high: float | None = None,
) -> Panel:
    """One bar for each series, the longest first."""
    ordered = [Query(f"sort_desc({query.expr})", query.legend) for query in queries]
    panel = titled(bargauge.Panel(), title, description, ordered, unit=unit, instant=True).min(0).span(width).height(8)
    panel.orientation(look.VizOrientation.HORIZONTAL).display_mode(look.BarGaugeDisplayMode.BASIC)
    panel.reduce_options(_last()).thresholds(_thresholds(limits)).no_value("0")
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    if high is not None:
        panel.max(high)
    return _named(panel, names)


def phases(title: str, description: str, query: Query, *, width: int = 24, height: int = 6) -> Panel:
    """The phases of jobs over time, a line for each job."""
    panel = titled(statetimeline.Panel(), title, description, [query], unit="none", instant=False)
    panel.mappings(phase_mappings()).show_value(look.VisibilityMode.AUTO).row_height(0.8).fill_opacity(80)
    panel.color_scheme(dashboard.FieldColor().mode(model.FieldColorModeId.THRESHOLDS))
    legend = common.VizLegendOptions().show_legend(False).placement(look.LegendPlacement.BOTTOM)
    panel.legend(legend.display_mode(look.LegendDisplayMode.LIST))
    return panel.merge_values(True).thresholds(_thresholds(((None, "#808080"),))).span(width).height(height)


def listing(title: str, description: str, columns: Mapping[str, Query], units: Mapping[str, str], link: str) -> Panel:
    """A table with a line for each job. `columns`: header and query; `units`: by header; `link`: opened by a job's
    name.
    """
    panel = titled(table.Panel(), title, description, columns.values(), unit="short", instant=True).span(24).height(8)
    for target in panel.build().targets:
        target.format_val = PromQueryFormat.TABLE
    letters = [f"Value #{chr(ord('A') + index)}" for index in range(len(columns))]
    renamed = dict(zip(letters, columns, strict=True)) | {"distilljob": "Job", "namespace": "Namespace"}
    order = {name: index for index, name in enumerate(["namespace", "distilljob", *letters])}
    panel.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    options = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}
    panel.with_transformation(model.DataTransformerConfig(id_val="organize", options=options))
    for header, unit in units.items():
        panel.override_by_name(header, [model.DynamicConfigValue("unit", unit)])
    values = [mapping.to_json() for mapping in phase_mappings()]
    cell = model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"})
    panel.override_by_name("Phase", [model.DynamicConfigValue("mappings", values), cell])
    links = [{"title": "Open the job", "url": link}]
    panel.override_by_name("Job", [model.DynamicConfigValue("links", links)])
    return panel.thresholds(_thresholds(((None, "text"),)))


def phase_mappings() -> list[model.ValueMapping]:
    """A phase's number as its name, in its colour."""
    results = {
        str(index): model.ValueMappingResult(text=phase, color=PHASE_COLORS[phase], index=index)
        for index, phase in enumerate(PHASES)
    }
    return [model.ValueMap(options=results)]


def _named(panel: Panel, names: Names | None) -> Panel:
    for series, (name, color) in (names or {}).items():
        fixed = {"mode": "fixed", "fixedColor": color}
        properties = [model.DynamicConfigValue("displayName", name), model.DynamicConfigValue("color", fixed)]
        panel.override_by_name(series, properties)
    return panel


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _thresholds(limits: Limits) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=value, color=color) for value, color in limits]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
