"""Prometheus' HTTP API, as far as pictures need it."""

import json
import urllib.parse
import urllib.request
from dataclasses import dataclass
from typing import Any

Labels = dict[str, str]


@dataclass(frozen=True)
class Series:
    """One series: Unix times and values."""

    labels: Labels
    times: list[float]
    values: list[float]


class Prometheus:
    """Queries to the server at `url`. Raises urllib.error.URLError, and HTTPError for a query that is refused."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        """The values of `expr` at every `step` seconds, on multiples of it as Grafana asks."""
        first = start - start % step
        result = self._get("query_range", query=expr, start=first, end=end, step=step)["result"]
        return [_series(series["metric"], series["values"]) for series in result]

    def instant(self, expr: str, at: float) -> list[Series]:
        """The values of `expr` at one time."""
        data = self._get("query", query=expr, time=at)
        if data["resultType"] == "scalar":
            return [_series({}, [data["result"]])]
        return [_series(series["metric"], [series["value"]]) for series in data["result"]]

    def _get(self, path: str, **parameters: Any) -> dict[str, Any]:
        url = f"{self._url}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=60) as answer:
            return dict(json.load(answer)["data"])


def _series(labels: Labels, samples: list[tuple[float, str]]) -> Series:
    return Series(labels, [float(time) for time, _ in samples], [float(value) for _, value in samples])
