"""The picture of the board with which the demo ends, from what a real Prometheus has kept of ranks and operator."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from digits.demo import board
from tests.chart.test_monitoring import pod, scrapes_of
from tests.chart.test_preview import JOB_BOARD, open_titles, titles
from tests.support.prometheus.dashboards import panels
from tests.support.prometheus.pictures import differing_panels
from tests.support.prometheus.server import PrometheusServer

EACH_MINUTE = {panel["title"] for panel in panels(json.loads(JOB_BOARD.read_text())) if panel.get("interval") == "1m"}
"""Panels that have a point at each full minute, and nothing to show of a job that lives between two."""


JOB: dict[str, Any] = {"metadata": {"namespace": "team", "name": "digits"}}
"""The job that the exporters speak for, as far as its picture needs it; created when Prometheus starts."""


@pytest.fixture(scope="module")
def recorded(render: Any, exporters: dict[str, int], tmp_path_factory: pytest.TempPathFactory) -> board.Recording:
    """What Prometheus saw of the job JOB."""
    folder = tmp_path_factory.mktemp("recorded")
    pods = [pod([exporters["rank0"], exporters["rank1"]], "digits-a2-1-x7k2p")]
    port = 10_000 + exporters["operator"] % 10_000
    scrapes = scrapes_of(render, pods, exporters["operator"])
    JOB["metadata"]["creationTimestamp"] = datetime.now(UTC).isoformat()
    with PrometheusServer(folder, scrapes, port=port, interval_seconds=board.SCRAPE_SECONDS) as server:
        for counter in ("distill_operator_restarts_total", "distill_checkpoint_saves_total"):
            server.wait_for(f"count_over_time({counter}[1m]) > 4")
        return board.Recording(folder, end=time.time())


def test_every_panel_shows_what_prometheus_saw_of_the_job(recorded: board.Recording) -> None:
    pictures = [recorded.folder / "new" / f"{name}.png" for name in ("digits", "nobody")]
    for picture in pictures:
        recorded.draw({"metadata": {**JOB["metadata"], "name": picture.stem}}, picture)
        assert recorded.missing is None
    shown, wanted = differing_panels(JOB_BOARD, *pictures), set(open_titles(JOB_BOARD))
    assert wanted - EACH_MINUTE <= shown <= wanted
    assert titles(pictures[0]) == open_titles(JOB_BOARD)


def test_a_new_picture_replaces_an_old_one(recorded: board.Recording, tmp_path: Path) -> None:
    picture = tmp_path / "board.png"
    picture.write_text("of another run")
    recorded.draw(JOB, picture)
    assert recorded.missing is None
    assert Image.open(picture).format == "PNG"
