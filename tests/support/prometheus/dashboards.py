"""What Grafana asks Prometheus for when it shows a dashboard."""

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

VARIABLES = {
    "namespace": ".+",
    "distilljob": ".+",
    "__rate_interval": "30s",
    "__interval": "5s",
    "__interval_ms": "5000",
    "__range": "30m",
}
"""Values of the dashboard's and Grafana's variables: all jobs, and windows for a scrape each second."""


class PanelQuery(NamedTuple):
    """One query of one panel, ready for Prometheus."""

    panel: str
    expr: str


def panel_queries(dashboard: Mapping[str, Any] | Path, **variables: str) -> list[PanelQuery]:
    """Every query of every panel, also of those in collapsed rows, with VARIABLES and `variables` put in.

    Raises ValueError when a query names a variable that has no value.
    """
    board = json.loads(dashboard.read_text()) if isinstance(dashboard, Path) else dashboard
    values = VARIABLES | variables
    return [
        PanelQuery(panel["title"], substituted(target["expr"], values, panel["title"]))
        for panel in panels(board)
        for target in panel.get("targets", [])
    ]


def panels(dashboard: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Every panel that shows something; rows are opened."""
    for panel in dashboard["panels"]:
        if panel["type"] == "row":
            yield from panels(panel)
        else:
            yield panel


def substituted(expr: str, values: Mapping[str, str], panel: str) -> str:
    """`expr` with the values of its variables. Raises ValueError when it names one that has none."""

    def value(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        if name not in values:
            raise ValueError(f"panel {panel!r} uses the variable ${name}, which has no value")
        return values[name]

    return re.sub(r"\$(?:\{(\w+)(?::\w+)?\}|(\w+))", value, expr)
