"""A real Prometheus scrapes operator and ranks as the chart's monitors say: panels have data, and alerts fire."""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from digits.demo import board, stage
from distill_api import metrics
from testcluster import Cluster
from tests.e2e.jobs import NAMESPACE, Jobs, phase, progress
from tests.support.prometheus.dashboards import panel_queries
from tests.support.prometheus.pictures import differing_panels
from tests.support.prometheus.server import PrometheusServer, prometheus_of

BOARDS = sorted((stage.CHART / "dashboards").glob("*.json"))
JOB_BOARD = stage.CHART / "dashboards" / f"{metrics.JOB_BOARD}.json"
RULES, ALERTS = (stage.CHART / "files" / f"{name}.yaml" for name in ("recording-rules", "alerts"))
HURRY = 30
"""What the `for` of every alert is divided by here. Nothing else of the chart's rules is changed."""
MOMENTARY = {"Restarts by reason", "Loss scale and skipped steps", "Teacher's mAP reached"}
"""Panels that are empty unless something has just happened, or the teacher scores more than 0, as this one does not."""


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[PrometheusServer]:
    """Debian's Prometheus, inside the cluster's network, with the targets of the chart's monitors."""
    monitors = stage.monitors(cluster)
    assert {monitor["kind"] for monitor in monitors} == {"PodMonitor", "ServiceMonitor"}
    options = {"prefix": cluster.nsenter_prefix(), "rule_files": [RULES, hurried(tmp_path / "alerts.yaml")]}
    with prometheus_of(monitors, cluster.kubeconfig, tmp_path, **options) as server:
        yield server


def hurried(path: Path) -> Path:
    """The chart's alerts with shorter times to wait."""
    rules = yaml.safe_load(ALERTS.read_text())
    for rule in (rule for group in rules["groups"] for rule in group["rules"]):
        assert rule["for"].endswith("m")
        rule["for"] = f"{60 * int(rule['for'][:-1]) // HURRY}s"
    path.write_text(yaml.safe_dump(rules))
    return path


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


def test_a_jobs_board_is_drawn_from_its_own_cluster(jobs: Jobs, cluster: Cluster, tmp_path: Path) -> None:
    with board.recording(cluster, tmp_path / "prometheus") as recorded:
        jobs.create("drawn", jobs.spec(epochs=6, teacher=None, val=True))
        job = jobs.complete("drawn")
    pictures = [tmp_path / "drawn.png", tmp_path / "nobody.png"]
    for picture, name in zip(pictures, ("drawn", "nobody"), strict=True):
        recorded.draw({**job, "metadata": {**job["metadata"], "name": name}}, picture)
        assert recorded.missing is None
    with PrometheusServer(recorded.folder, []) as server:
        (last,) = server.query(f'{metrics.OperatorMetric.JOB_PHASE}{{distilljob="drawn"}}', at=recorded.end)
    assert last.labels["phase"] == "Succeeded"
    of_operator, of_ranks = {"Phase", "Goodput", "Phases"}, {"Losses", "mAP", "Time by phase", "Step duration by rank"}
    assert differing_panels(JOB_BOARD, *pictures) >= of_operator | of_ranks


def test_alerts_fire_when_it_happens(jobs: Jobs, prometheus: PrometheusServer) -> None:
    """A job that fails, a checkpoint that is damaged, and an operator that is gone."""
    jobs.create("wrong", jobs.spec(teacher="models/other-classes.pt"))
    jobs.create("damaged", {**jobs.spec(epochs=2000, teacher=None), "nodes": 1})
    checkpoints = jobs.volumes / "runs" / "damaged" / "checkpoints"
    jobs.wait("damaged", lambda _: len(committed(checkpoints)) > 1, seconds=120, what="two checkpoints")
    wait_for_alert(prometheus, "DistillJobFailed", {"namespace": NAMESPACE, "distilljob": "wrong"})
    assert {alert["labels"]["alertname"] for alert in firing(prometheus)} == {"DistillJobFailed"}

    jobs.kill_a_rank(jobs.pods("damaged")[0]["metadata"]["name"])
    jobs.wait("damaged", lambda job: phase(job) == "Recovering", seconds=30, what="the end of the attempt")
    flip_a_byte(committed(checkpoints)[-1] / "tensors.bin")
    of_job = {"namespace": NAMESPACE, "distilljob": "damaged", "attempt": "2"}
    wait_for_alert(prometheus, "DistillJobCheckpointFallback", of_job, seconds=90)

    operator = ("-n", stage.SYSTEM_NAMESPACE, "deployment/distill-operator")
    jobs.cluster.kubectl("scale", *operator, "--replicas=0")
    try:
        absent = wait_for_alert(prometheus, "DistillOperatorAbsent", {"severity": "critical"}, seconds=60)
        assert absent["annotations"]["runbook_url"].endswith("#distilloperatorabsent")
    finally:
        jobs.cluster.kubectl("scale", *operator, "--replicas=1")
        jobs.cluster.kubectl("rollout", "status", *operator, "--timeout=60s")


def firing(prometheus: PrometheusServer) -> list[dict[str, Any]]:
    return [alert for alert in prometheus.alerts() if alert["state"] == "firing"]


def wait_for_alert(
    prometheus: PrometheusServer, name: str, labels: dict[str, str], *, seconds: float = 45
) -> dict[str, Any]:
    """The alert of this name and these labels, as soon as Prometheus says that it is firing."""
    deadline = time.monotonic() + seconds
    while True:
        for alert in firing(prometheus):
            if labels.items() | {("alertname", name)} <= alert["labels"].items():
                return alert
        assert time.monotonic() < deadline, f"{name} does not fire: {prometheus.alerts()}"
        time.sleep(0.5)


def committed(checkpoints: Path) -> list[Path]:
    """The folders of the checkpoints that are committed."""
    folders = (folder for folder in checkpoints.glob("step-*") if "." not in folder.name)
    return sorted(folders, key=lambda folder: int(folder.name.removeprefix("step-")))


def flip_a_byte(file: Path) -> None:
    """As a disk does that loses what it has written."""
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
