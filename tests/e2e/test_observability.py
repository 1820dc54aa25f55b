"""A real Prometheus scrapes operator and ranks as the chart's monitors say; every panel of the dashboard has data."""

import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from digits.demo import stage
from distill_api import metrics
from testcluster import Cluster
from tests.e2e.jobs import NAMESPACE, Jobs, progress
from tests.support.prometheus.dashboards import panel_queries
from tests.support.prometheus.server import PrometheusServer, prometheus_of

BOARDS = sorted((stage.CHART / "dashboards").glob("*.json"))
RULES = [stage.CHART / "files" / "recording-rules.yaml"]
MOMENTARY = {"Restarts by reason", "Loss scale and skipped steps", "Teacher's mAP reached"}
"""Panels that are empty unless something has just happened, or the teacher scores more than 0, as this one does not."""


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[PrometheusServer]:
    """Debian's Prometheus, inside the cluster's network, with the targets of the chart's monitors."""
    rendered = cluster.helm(
        "template", "distill-operator", str(stage.CHART), "--namespace", stage.SYSTEM_NAMESPACE,
        "--api-versions", "monitoring.coreos.com/v1",
        "--set", "trainer.image=unused",
        "--set", "monitoring.podMonitor.enabled=true",
        "--set", "monitoring.serviceMonitor.enabled=true",
    )  # fmt: skip
    monitors = [doc for doc in yaml.safe_load_all(rendered) if doc and doc["kind"] in ("PodMonitor", "ServiceMonitor")]
    assert {monitor["kind"] for monitor in monitors} == {"PodMonitor", "ServiceMonitor"}
    options = {"prefix": cluster.nsenter_prefix(), "rule_files": RULES}
    with prometheus_of(monitors, cluster.kubeconfig, tmp_path, **options) as server:
        yield server


def test_every_panel_of_the_boards_shows_something(jobs: Jobs, prometheus: PrometheusServer) -> None:
    balanced = {"terms": [{"loss": "sl2"}], "share": 0.5}  # only with a share are the neck's gradients compared
    jobs.create("observed", {**jobs.spec(epochs=200, val=True), "distillation": balanced})
    jobs.in_mid_training("observed", steps=10)
    jobs.kubectl("delete", "pod", jobs.pods("observed")[1]["metadata"]["name"], "--wait=false")
    jobs.wait(
        "observed",
        lambda job: job["status"]["attempt"] == 2 and progress(job).get("step", 0) >= 64,
        seconds=180,
        what="the second attempt after its first validation",
    )
    time.sleep(12)  # two polls of the operator, and enough scrapes for a rate

    up = prometheus.query(f'up{{namespace="{NAMESPACE}"}}')
    assert [sample.value for sample in up] == [1, 1], "both ranks are scraped"
    empty = []
    queries = (query for board in BOARDS for query in panel_queries(board, namespace=NAMESPACE, distilljob="observed"))
    for panel, expression in queries:
        if panel in MOMENTARY or "DCGM_" in expression:
            continue
        samples = prometheus.query(expression)
        if not samples or all(math.isnan(sample.value) for sample in samples):
            empty.append(f"{panel}: {expression}")
    assert not empty, "\n".join(empty)

    of_job = f'namespace="{NAMESPACE}",distilljob="observed"'
    ranks = prometheus.query(f"{metrics.TrainerMetric.STEP}{{{of_job}}}")
    assert len(ranks) == 2
    losses = prometheus.query(f'{metrics.TrainerMetric.LOSS}{{{of_job},component="dis"}}')
    assert len(losses) == 2
    assert all(sample.value > 0 for sample in losses)
    restarts = prometheus.query(f"{metrics.OperatorMetric.RESTARTS}{{{of_job}}} > 0")
    assert [sample.labels["reason"] for sample in restarts] == ["PodDeleted"]
