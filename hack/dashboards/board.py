"""A board: rows of panels with the variables, links and annotations that Grafana needs around them."""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from dashboards.panels import DATA_SOURCE, Panel
from distill_api.metrics import JOB_BOARD

FLEET: Final = "distill-fleet"
JOB: Final = JOB_BOARD
"""The boards' uids, and the names of their files."""
TAG: Final = "distill-operator"


@dataclass(frozen=True)
class Row:
    """A heading, and the panels below it, from left to right; `closed` until someone opens it."""

    title: str
    panels: Sequence[Panel]
    closed: bool = False


@dataclass(frozen=True)
class Annotation:
    """A mark in all graphs, where the query has values. `title` may name labels in double braces."""

    name: str
    expr: str
    title: str
    color: str


@dataclass(frozen=True)
class Board:
    """Everything of one board."""

    uid: str
    title: str
    description: str
    rows: Sequence[Row]
    variables: Sequence[Any]
    links: Sequence[tuple[str, str]]
    """Title and address of other boards."""
    annotations: Sequence[Annotation] = field(default_factory=tuple)

    def to_json(self) -> str:
        """The JSON that Grafana imports."""
        builder = dashboard.Dashboard(self.title).uid(self.uid).description(self.description).readonly()
        builder.tags([TAG, "training"]).refresh("30s").time("now-6h", "now").timezone("browser")
        builder.tooltip(model.DashboardCursorSync.CROSSHAIR)
        for variable in (_data_source(), *self.variables):
            builder.with_variable(variable)
        for title, url in self.links:
            link = dashboard.DashboardLink(title).type(model.DashboardLinkType.LINK).url(url).icon("dashboard")
            builder.link(link.keep_time(True).include_vars(False).target_blank(False))
        _lay_out(builder, self.rows)
        board = json.loads(json.dumps(builder.build(), cls=JSONEncoder))
        board["annotations"] = {"list": [_annotation(annotation) for annotation in self.annotations]}
        return json.dumps(board, indent=1, sort_keys=True, ensure_ascii=False)


def choice(name: str, label: str, query: str, *, many: bool) -> dashboard.QueryVariable:
    """A variable whose values Prometheus knows. `many`: several may be chosen, and at first all are."""
    variable = dashboard.QueryVariable(name).label(label).datasource(DATA_SOURCE).query(query)
    variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    if many:
        all_of_them = model.VariableOption(selected=True, text=["All"], value=["$__all"])
        variable.multi(True).include_all(True).all_value(".+").current(all_of_them)
    return variable


def _data_source() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _lay_out(builder: dashboard.Dashboard, rows: Iterable[Row]) -> None:
    ids = itertools.count(1)
    for row in rows:
        heading = dashboard.Row(row.title).id(next(ids))
        if row.closed:
            for panel in row.panels:
                heading.with_panel(panel.id(next(ids)))
        builder.with_row(heading)
        for panel in () if row.closed else row.panels:
            builder.with_panel(panel.id(next(ids)))


def _annotation(annotation: Annotation) -> dict[str, Any]:
    """The SDK's type has no field for the texts of a Prometheus annotation."""
    return {
        "name": annotation.name,
        "datasource": DATA_SOURCE.to_json(),
        "enable": True,
        "iconColor": annotation.color,
        "expr": annotation.expr,
        "step": "15s",
        "titleFormat": annotation.title,
    }
