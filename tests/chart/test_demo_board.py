"""The picture of the board with which the demo ends, from what a real Prometheus has kept of ranks and operator."""

import json
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


@pytest.fixture(scope="module")
def recorded(
    render: Any, exporters: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """What Prometheus saw of a job, and the job, as far as its picture needs it."""
    folder = tmp_path_factory.mktemp("recorded")
    pods = [pod([exporters["rank0"], exporters["rank1"]], "digits-a2-1-x7k2p")]
    port = 10_000 + exporters["operator"] % 10_000
    scrapes = scrapes_of(render, pods, exporters["operator"])
    start = now()
    with PrometheusServer(folder, scrapes, port=port, interval_seconds=board.SCRAPE_SECONDS) as server:
        for counter in ("distill_operator_restarts_total", "distill_checkpoint_saves_total"):
            server.wait_for(f"count_over_time({counter}[1m]) > 4")
        end = now()
    metadata = {"namespace": "team", "name": "digits", "creationTimestamp": start}
    return folder, {"metadata": metadata, "status": {"attempts": [{"endedAt": start}, {"endedAt": end}]}}


def now() -> str:
    return datetime.now(UTC).isoformat()


def test_every_panel_shows_what_prometheus_saw_of_the_job(recorded: tuple[Path, dict[str, Any]]) -> None:
    folder, job = recorded
    pictures = [folder / "new" / f"{name}.png" for name in ("digits", "nobody")]
    for picture in pictures:
        board.draw_board(folder, {**job, "metadata": {**job["metadata"], "name": picture.stem}}, picture)
    shown, wanted = differing_panels(JOB_BOARD, *pictures), set(open_titles(JOB_BOARD))
    assert wanted - EACH_MINUTE <= shown <= wanted
    assert titles(pictures[0]) == open_titles(JOB_BOARD)


def test_a_new_picture_replaces_an_old_one(recorded: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder, job = recorded
    picture = tmp_path / "board.png"
    picture.write_text("of another run")
    recording = board.Recording(folder)
    recording.draw(job, picture)
    assert recording.missing is None
    assert Image.open(picture).format == "PNG"
