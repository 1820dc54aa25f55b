"""What the panels of a board show: their queries with variables put in, asked of a Prometheus."""

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dashboards.preview.prometheus import Prometheus, Series
from dashboards.preview.texts import Panel, legend

POINTS = 240
"""Of a graph, at most: Grafana has one for each of its pixels."""


@dataclass(frozen=True)
class Window:
    """The time range of a board, in Unix time, and the scrape interval in seconds."""

    start: float
    end: float
    scrape: float

    @property
    def hours(self) -> str:
        """The range for people."""
        first, last = (time.strftime("%H:%M", time.gmtime(moment)) for moment in (self.start, self.end))
        return f"{first} to {last} UTC"


@dataclass(frozen=True)
class Named:
    """A series and what it is called."""

    name: str
    series: Series


class Source:
    """Answers of a Prometheus for a time range and values of the board's variables."""

    def __init__(self, prometheus: Prometheus, window: Window, variables: Mapping[str, str]) -> None:
        self._prometheus, self.window, self._variables = prometheus, window, variables

    def lines(self, panel: Panel) -> list[Named]:
        """The series of every query of the panel, over time."""
        step = self.step(panel)
        return [
            Named(legend(target["legendFormat"], series.labels), series)
            for target in panel["targets"]
            for series in self._prometheus.range(self._filled(target["expr"], step), *self._span, step)
        ]

    def numbers(self, panel: Panel) -> list[list[Named]]:
        """What every query of the panel answers at the end of the time range."""
        step = self.step(panel)
        return [
            [
                Named(legend(target["legendFormat"], series.labels), series)
                for series in self._prometheus.instant(self._filled(target["expr"], step), self.window.end)
            ]
            for target in panel["targets"]
        ]

    def marks(self, annotation: Mapping[str, Any]) -> Iterator[tuple[float, str]]:
        """Times and texts of an annotation; values that follow each other are one mark, as in Grafana."""
        step = self.window.scrape
        for series in self._prometheus.range(self._filled(annotation["expr"], step), *self._span, step):
            before = float("-inf")
            for moment in series.times:
                if moment - before > 1.5 * step:
                    yield moment, legend(annotation["titleFormat"], series.labels)
                before = moment

    def step(self, panel: Panel) -> float:
        """Seconds between two points: as the panel asks, but no finer than scrapes and pixels."""
        asked = re.fullmatch(r"(\d+)m", panel.get("interval") or "")
        span = self.window.end - self.window.start
        return max(60.0 * int(asked[1]) if asked else 0.0, self.window.scrape, float(round(span / POINTS)))

    @property
    def _span(self) -> tuple[float, float]:
        return self.window.start, self.window.end

    def _filled(self, expr: str, step: float) -> str:
        scrape = self.window.scrape
        values = {
            "__rate_interval": f"{max(step + scrape, 4 * scrape):.0f}s",
            "__interval": f"{step:.0f}s",
            "__interval_ms": f"{1000 * step:.0f}",
            "__range": f"{self.window.end - self.window.start:.0f}s",
            **self._variables,
        }
        return re.sub(r"\$\{?(\w+)\}?", lambda found: values[found[1]], expr)
