"""helm itself renders the chart; a small exporter speaks for two ranks and the operator."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count, pairwise
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, Metric, start_http_server
from prometheus_client.registry import Collector

from distill_api.constants import Outcome
from distill_api.status import DistillJobStatus, Goodput, Progress
from distill_operator.controller.telemetry.metrics import Metrics
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from testcluster.artifacts import binaries
from tests.support.machine.python import ROOT
from tests.support.operator.samples import attempt, closed, job, status

CHART = ROOT / "charts" / "distill-operator"
KEY = ("team", "digits")
MONITORING = ("--api-versions", "monitoring.coreos.com/v1")

Objects = list[dict[str, Any]]
Render = Callable[..., Objects]


def helm(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([binaries.helm(), *arguments], input=stdin, capture_output=True, text=True, timeout=60)


@pytest.fixture(scope="session")
def render() -> Render:
    """render(values, release) -> objects of `helm template <release> charts/distill-operator -n distill-system`."""

    def template(values: dict[str, Any] | None = None, release: str = "distill") -> Objects:
        base = ("template", release, str(CHART), "--namespace", "distill-system", "--values", "-")
        done = helm(*base, *MONITORING, stdin=yaml.safe_dump(values or {}))
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return template


@pytest.fixture(scope="session")
def refused() -> Callable[..., str]:
    """refused(values) -> what helm says when it refuses them; Prometheus Operator is not there."""

    def template(values: dict[str, Any]) -> str:
        done = helm("template", "distill", str(CHART), "--values", "-", stdin=yaml.safe_dump(values))
        assert done.returncode != 0, "helm accepted these values"
        return done.stderr

    return template


@pytest.fixture(scope="module")
def exporters() -> Iterator[dict[str, int]]:
    """Ports on loopback that serve the metrics of two ranks (rank0, rank1) and of the operator."""
    with ExitStack() as servers:

        def serve(registry: CollectorRegistry) -> int:
            server, thread = start_http_server(0, addr="127.0.0.1", registry=registry)

            def close() -> None:
                server.shutdown()
                server.server_close()
                thread.join()

            servers.callback(close)
            return int(server.server_port)

        yield {
            "rank0": serve(rank_metrics(0)),
            "rank1": serve(rank_metrics(1)),
            "operator": serve(operator_metrics()),
        }


class EveryScrape(Collector):
    """Lets something happen at every scrape, so that counters grow as those of a working process do."""

    def __init__(self, happen: Callable[[], None]) -> None:
        self.happen = happen

    def collect(self) -> Iterator[Metric]:
        self.happen()
        return iter(())


def rank_metrics(rank: int) -> CollectorRegistry:
    """The trainer's own metrics on CPUs: whatever can happen to a rank happens between two scrapes."""
    versions = {"torch": "2.15", "ultralytics": "8.4"}
    metrics = TrainerMetrics(rank=rank, world_size=2, checkpoint_interval=60, versions=versions)
    metrics.planned(steps=10_000)
    metrics.execution(1)
    metrics.resumed(20)
    metrics.evaluated("student", map50=0.5, map50_95=0.4)
    metrics.evaluated("teacher", map50=0.6, map50_95=0.5)
    metrics.losses({"box": 1.5, "cls": 1.0, "dfl": 1.2, "dis": 4.0})
    metrics.learning_rates({"pg0": 0.01})
    metrics.grad_norm(3.0)
    metrics.neck_gradients([0.5, 0.4, 0.3], [0.1, 0.0, -0.1])
    steps = count(21)

    def train() -> None:
        step = next(steps)
        for phase in ("data", "teacher", "forward", "backward", "optimizer"):
            metrics.phase(phase, 0.1)
        metrics.step(images=8, seconds=0.5, step=step, epoch=0)
        if rank == 0:
            metrics.checkpoint_stalled(0.01)
            metrics.checkpoint_committed(step, datetime.now(UTC), 0.4)
            metrics.checkpoint_failed()
            metrics.checkpoint_fell_back()
        metrics.skipped("non_finite")

    metrics.registry.register(EveryScrape(train))
    return metrics.registry


def operator_metrics() -> CollectorRegistry:
    """The operator's own metrics: between two scrapes it makes a pass, and a job lives until it trains again after a
    preemption.
    """
    metrics, began = Metrics(), datetime.now(UTC) - timedelta(minutes=1)
    ran = {"started_at": began, "scheduled_at": began, "running_at": began + timedelta(seconds=9)}
    over = closed(1, **ran, step=30, outcome=Outcome.DISRUPTED).model_copy(update={"ended_at": began})
    spent = {f"{kind}_seconds": 2.0 for kind in ("validation", "restart", "lost_work", "checkpoint_stall")}
    goodput = Goodput(productive_seconds=9, waiting_for_capacity_seconds=1, **spent, ratio=0.5, accounted_until=began)
    now = status(over, attempt(2, **ran, lost_steps=10), progress=Progress(committed_step=30), goodput=goodput)
    life = (DistillJobStatus(), status(attempt(started_at=began)), status(attempt(**ran)), status(over), now)
    metrics.crd_matches(True)
    metrics.leads(True)
    metrics.silent_jobs(lambda: 0)

    def work() -> None:
        metrics.passed(0.02)
        metrics.failed()
        metrics.polled(True)
        metrics.polled(False)
        metrics.state(KEY, job(now, accelerators={"perNode": 2}))
        for before, after in pairwise(life):
            metrics.transition(KEY, before, after)

    metrics.registry.register(EveryScrape(work))
    return metrics.registry
