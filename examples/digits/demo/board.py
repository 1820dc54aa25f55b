"""The job's Grafana board, drawn without Grafana from a Prometheus that scraped the demo's operator and ranks."""

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from dashboards.preview import page
from dashboards.preview.prometheus import Prometheus
from dashboards.preview.source import Source, Window
from digits.demo import stage
from distill_api.metrics import JOB_BOARD
from distill_local.trainer_process import free_port
from testcluster import Cluster, ExternalCluster
from tests.support.prometheus.server import PrometheusServer, prometheus_of

SCRAPE_SECONDS = 2.0


@dataclass
class Recording:
    """What a Prometheus keeps in `folder`, until Unix time `end`. `missing` says why there is no picture of it."""

    folder: Path
    missing: str | None = None
    end: float = 0.0

    def draw(self, job: dict[str, Any], picture: Path) -> None:
        """Draw the board of a job that has ended, unless `missing`; an error only becomes `missing`."""
        picture.unlink(missing_ok=True)
        if self.missing is None:
            with self._optional():
                draw_board(self.folder, job, self.end, picture)

    @contextmanager
    def _optional(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001  the picture is never worth the demo
            self.missing = in_a_line(error)


@contextmanager
def recording(cluster: Cluster | ExternalCluster, folder: Path) -> Iterator[Recording]:
    """While the block runs, a Prometheus in the cluster's network scrapes what the chart's monitors say."""
    recorded = Recording(folder)
    with ExitStack() as running:
        with recorded._optional():
            options = {"prefix": cluster.nsenter_prefix(), "interval_seconds": SCRAPE_SECONDS}
            server = prometheus_of(stage.monitors(cluster), cluster.kubeconfig, folder, **options)
            running.enter_context(server)
        yield recorded
        if recorded.missing is None:
            time.sleep(2 * SCRAPE_SECONDS)  # the last scrapes
            recorded.end = time.time()


def in_a_line(error: Exception) -> str:
    """The error's last line, where a program's log has its cause; with its type, unless it was meant for people."""
    last = (str(error).strip().splitlines() or [""])[-1]
    return last if last and isinstance(error, OSError | RuntimeError) else f"{type(error).__name__}: {last}"


def draw_board(folder: Path, job: dict[str, Any], end: float, picture: Path) -> None:
    """Write a job's board as a PNG, from its creation to `end`, from the data of the Prometheus of `folder`."""
    namespace, name = job["metadata"]["namespace"], job["metadata"]["name"]
    start = datetime.fromisoformat(job["metadata"]["creationTimestamp"]).timestamp()
    window = Window(start, end, SCRAPE_SECONDS)
    board = json.loads((stage.CHART / "dashboards" / f"{JOB_BOARD}.json").read_text())
    picture.parent.mkdir(parents=True, exist_ok=True)
    with PrometheusServer(folder, [], port=free_port()) as server:
        source = Source(Prometheus(server.url), window, {"namespace": namespace, "distilljob": name})
        page.draw(board, source, picture, f"{namespace} / {name}     {window.hours}")
