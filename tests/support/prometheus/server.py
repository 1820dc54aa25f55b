"""A real Prometheus (Debian's) for a test: started on a scratch directory, asked with PromQL, and stopped."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.support.prometheus.dashboards import PanelQuery, panel_queries
from tests.support.prometheus.discovery import Discovery
from tests.support.prometheus.monitors import Manifest, ScrapeConfig, scrape_configs

__all__ = ["PanelQuery", "PrometheusServer", "QueryError", "Sample", "panel_queries", "prometheus_of"]


class QueryError(RuntimeError):
    """Prometheus refused a query or could not answer it."""


@dataclass(frozen=True)
class Sample:
    """One series of an instant query's answer; value may be NaN or infinite."""

    labels: dict[str, str]
    value: float
    timestamp: float


@contextmanager
def prometheus_of(
    monitors: Iterable[Manifest], kubeconfig: Path, directory: Path, **options: Any
) -> Iterator["PrometheusServer"]:
    """A Prometheus that scrapes what PodMonitors and ServiceMonitors select in the cluster of `kubeconfig`.

    Objects of other kinds are passed over, so a whole rendered chart may be given. `options` go to PrometheusServer.
    New pods are scraped within about 6 s, as with Prometheus' own discovery.
    """
    with Discovery(directory / "targets", kubeconfig) as discovery:
        chosen = (monitor for monitor in monitors if monitor["kind"] in ("PodMonitor", "ServiceMonitor"))
        scrapes = [scrape for monitor in chosen for scrape in scrape_configs(monitor, discovery.directory)]
        with PrometheusServer(directory, scrapes, **options) as server:
            yield server


class PrometheusServer:
    """Scrapes what `scrapes` says (see monitors.scrape_configs) from construction to stop().

    `prefix` is put before every command: ("nsenter", "--net=/run/netns/X") runs server and queries in that network.
    Queries go through promtool, so the server needs to be reachable from there only. As a context manager it stops
    at the end of the block. Raises FileNotFoundError without Debian's package prometheus, and RuntimeError with the
    server's log when it does not become ready.
    """

    def __init__(
        self,
        directory: Path,
        scrapes: Sequence[ScrapeConfig],
        *,
        rule_files: Sequence[Path] = (),
        prefix: Sequence[str] = (),
        port: int = 19090,
        interval_seconds: float = 1,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.prefix = tuple(prefix)
        self.url = f"http://127.0.0.1:{port}"
        self.log = directory / "prometheus.log"
        interval = f"{round(interval_seconds * 1000)}ms"
        config = {
            "global": {
                "scrape_interval": interval,
                "scrape_timeout": interval,
                "evaluation_interval": interval,
            },
            "rule_files": [str(path.resolve()) for path in rule_files],
            "scrape_configs": list(scrapes),
        }
        config_file = directory / "prometheus.yaml"
        config_file.write_text(yaml.safe_dump(config, sort_keys=False))
        command = [
            *self.prefix,
            _installed("prometheus"),
            f"--config.file={config_file}",
            f"--storage.tsdb.path={directory / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--storage.tsdb.retention.time=6h",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=directory)
        try:
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def query(self, expr: str, *, at: float | None = None) -> list[Sample]:
        """The instant vector (a scalar: one sample without labels) that `expr` is now, or was at Unix time `at`.

        Series vanish with their pod: to ask about a run that has ended, pass a time at which it ran.
        """
        moment = [] if at is None else [f"--time={at:.3f}"]
        answer = self._promtool("query", "instant", "-o", "json", *moment, self.url, expr)
        if answer and not isinstance(answer[0], dict):
            answer = [{"metric": {}, "value": answer}]
        return [Sample(series["metric"], float(series["value"][1]), float(series["value"][0])) for series in answer]

    def wait_for(self, expr: str, *, timeout_seconds: float = 60) -> list[Sample]:
        """The first answer to `expr` that is not empty; TimeoutError with the targets' errors when none comes."""
        deadline = time.monotonic() + timeout_seconds
        while not (samples := self.query(expr)):
            if time.monotonic() > deadline:
                up = {str(sample.labels): sample.value for sample in self.query("up")}
                raise TimeoutError(f"no answer to {expr} in {timeout_seconds} s; targets up: {up}")
            time.sleep(0.5)
        return samples

    def alerts(self) -> list[dict[str, Any]]:
        """What /api/v1/alerts lists: alerts that are pending or firing, each with labels, annotations and state."""
        read = f"import urllib.request as u; print(u.urlopen('{self.url}/api/v1/alerts', timeout=30).read().decode())"
        command = [*self.prefix, sys.executable, "-c", read]
        environment = {**os.environ, "no_proxy": "127.0.0.1"}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
        return list(json.loads(done.stdout)["data"]["alerts"])

    def stop(self) -> None:
        """End the server; SIGKILL when it is not gone after 10 s."""
        if self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _promtool(self, *arguments: str) -> Any:
        done = subprocess.run(
            [*self.prefix, _installed("promtool"), *arguments], capture_output=True, text=True, timeout=60
        )
        if done.returncode != 0:
            raise QueryError(f"{arguments[-1]}: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def _wait_until_ready(self, timeout_seconds: float = 30) -> None:
        deadline = time.monotonic() + timeout_seconds
        while self.process.poll() is None and time.monotonic() < deadline:
            try:
                if self.query("vector(1)"):
                    return
            except QueryError:
                time.sleep(0.2)
        raise RuntimeError(f"Prometheus did not become ready: {self.log.read_text()[-2000:]}")


def _installed(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise FileNotFoundError(f"{program} is missing: apt-get install prometheus")
    return path
