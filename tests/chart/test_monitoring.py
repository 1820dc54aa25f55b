"""Monitors, dashboard and alerts: a real Prometheus scrapes as the chart says and answers every panel."""

import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.job import DistillJob
from distill_api.metrics import OperatorMetric, TrainerMetric
from distill_operator.builders.pod import build_pod_template
from tests.support.machine.python import ROOT
from tests.support.operator.samples import SETTINGS
from tests.support.prometheus.dashboards import VARIABLES, panel_queries, substituted
from tests.support.prometheus.discovery import endpoint_targets, pod_targets
from tests.support.prometheus.monitors import scrape_config
from tests.support.prometheus.server import PrometheusServer, QueryError

CHART = ROOT / "charts" / "distill-operator"
BOARDS = [CHART / "dashboards" / name for name in ("distill-fleet.json", "distilljob.json")]
ALERTS = CHART / "files" / "alerts.yaml"
RECORDINGS = CHART / "files" / "recording-rules.yaml"
NAMES = {
    str(value)
    for kind in (TrainerMetric, OperatorMetric)
    for field, value in vars(kind).items()
    if not field.startswith("_")
}
ENABLED = {"monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")}}


def metric_names(text: str) -> set[str]:
    found = set(re.findall(r"\bdistill_\w+", text))
    return {re.sub(r"_(bucket|sum|count)$", "", name) if name not in NAMES else name for name in found}


JOB = DistillJob.model_validate(
    {
        "metadata": {"name": "digits", "namespace": "team", "uid": "u"},
        "spec": {
            "student": {"model": "yolo26n.yaml"},
            "dataset": {"config": "digits.yaml"},
            "nodes": 2,
            "accelerators": {"perNode": 0, "processesPerNode": 2},
            "training": {"batch": 16},
            "volumes": {"checkpoints": {"claimName": "runs"}, "data": {"claimName": "digits"}},
        },
    }
)


def pod(ports: list[int], name: str, *, phase: str = "Running", **labels: str) -> dict[str, Any]:
    """A pod that the operator builds, on loopback; its ranks listen where the exporters do."""
    template = build_pod_template(JOB, "team", 2, 2, SETTINGS)
    (container,) = template["spec"]["containers"]
    for declared, port in zip(container["ports"], ports, strict=True):
        declared["containerPort"] = port
    index = {"batch.kubernetes.io/job-completion-index": "1"}
    metadata = {
        "name": name,
        "namespace": "team",
        "labels": template["metadata"]["labels"] | index | labels,
    }
    return {
        "metadata": metadata,
        "spec": template["spec"],
        "status": {"phase": phase, "podIP": "127.0.0.1"},
    }


def endpoint_slice(service: dict[str, Any], port: int) -> dict[str, Any]:
    """Where the operator's service leads to; both of its ports, so that a wrong choice shows."""
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    return {
        "metadata": {"namespace": namespace, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": declared["name"], "port": port} for declared in service["spec"]["ports"]],
        "endpoints": [{"addresses": ["127.0.0.1"], "targetRef": {"name": f"{name}-1"}}],
    }


def scrapes_of(render: Any, pods: list[dict[str, Any]], operator_port: int) -> list[dict[str, Any]]:
    """How the chart's monitors scrape these pods, and an operator on loopback."""
    objects = {o["kind"]: o for o in render(ENABLED)}
    service = objects["Service"]
    found = {
        "PodMonitor": list(pod_targets(pods)),
        "ServiceMonitor": list(endpoint_targets([endpoint_slice(service, operator_port)], [service])),
    }
    return [
        scrape_config(objects[kind], endpoint, 0) | {"static_configs": found[kind]}
        for kind, endpoints in (("PodMonitor", "podMetricsEndpoints"), ("ServiceMonitor", "endpoints"))
        for endpoint in objects[kind]["spec"][endpoints]
    ]


@pytest.fixture(scope="module")
def prometheus(
    render: Any, exporters: dict[str, int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrometheusServer]:
    """Targets as discovery finds them, some of them none of ours; chosen and labelled by the chart's rules."""
    ranks = [exporters["rank0"], exporters["rank1"]]
    without_ranks = pod(ranks, "other-ports")
    for declared in without_ranks["spec"]["containers"][0]["ports"]:
        declared["name"] = "debug"
    pods = [
        pod(ranks, "digits-a2-1-x7k2p"),
        pod(ranks, "finished", phase="Succeeded"),
        pod(ranks, "check", **{"app.kubernetes.io/component": "check"}),
        without_ranks,
    ]
    scrapes = scrapes_of(render, pods, exporters["operator"])
    port = 20000 + exporters["operator"] % 10000
    options = {"port": port, "interval_seconds": 0.5, "rule_files": [RECORDINGS]}
    with PrometheusServer(tmp_path_factory.mktemp("prometheus"), scrapes, **options) as server:
        server.wait_for(
            "rate(distill_steps_total[30s]) > 0 and on () rate(distill_operator_pass_duration_seconds_count[30s]) > 0"
        )
        server.wait_for("count(distill_steps_total) == 2")
        server.wait_for("sum_over_time(distilljob_kind:distill_accelerator_seconds:rate5m[30m:5s])")
        yield server


def test_a_real_prometheus_scrapes_as_the_monitors_say(prometheus: PrometheusServer) -> None:
    ranks = {sample.labels["local_rank"]: sample.labels for sample in prometheus.query("distill_step")}
    assert ranks.keys() == {"0", "1"}
    for labels in ranks.values():
        wanted = {"namespace": "team", "distilljob": "digits", "attempt": "2", "node_rank": "1"}
        assert {**wanted, "pod": "digits-a2-1-x7k2p"}.items() <= labels.items()
    assert len(prometheus.query("up")) == 3, (
        "a finished pod, a check pod, another port and the health port are no targets"
    )

    (committed,) = prometheus.query("distill_operator_committed_step")
    assert (committed.labels["namespace"], committed.labels["distilljob"]) == ("team", "digits")

    with pytest.raises(QueryError, match="parse error"):
        prometheus.query("sum(")
    assert prometheus.query("distill_step", at=time.time() - 3600) == []


def test_the_label_job_stays_prometheus_own(prometheus: PrometheusServer) -> None:
    """Alerts on targets that are down, which everybody has, know scrapes by it."""
    jobs = {sample.labels["job"] for sample in prometheus.query("up")}
    assert jobs == {"distill-system/distill-distill-operator-trainers", "distill-distill-operator"}


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_a_real_prometheus_answers_every_panel(prometheus: PrometheusServer, board: Path) -> None:
    for panel, expr in panel_queries(board):
        samples = prometheus.query(expr)
        if "DCGM_" in expr:
            continue  # parsed, but no GPU is here
        assert samples, f"{panel} is empty: {expr}"
        assert all(math.isfinite(sample.value) for sample in samples), f"{panel}: {samples}"
    for annotation in json.loads(board.read_text())["annotations"]["list"]:
        prometheus.query(substituted(annotation["expr"], VARIABLES, annotation["name"]))


def test_panels_show_what_happened(prometheus: PrometheusServer) -> None:
    def shown(board: Path, title: str) -> dict[str, float]:
        answers = [prometheus.query(query.expr) for query in panel_queries(board) if query.panel == title]
        return {next(iter(sample.labels.values()), ""): sample.value for answer in answers for sample in answer}

    fleet, job = BOARDS
    assert shown(fleet, "Accelerators in use") == {"": 4}
    assert shown(fleet, "Goodput")[""] == pytest.approx(0.5, abs=0.01)
    badput = shown(fleet, "Badput by cause")
    assert badput.keys() == {"validation", "restart", "lost_work", "checkpoint_stall", "waiting_for_capacity"}
    assert badput["restart"] == pytest.approx(2 * badput["waiting_for_capacity"], rel=0.01)
    assert shown(fleet, "Restart time")[""] > 0
    assert shown(job, "Phase") == {"": 3}, "Running is the fourth phase"
    assert shown(job, "Teacher's mAP reached")[""] == pytest.approx(0.8)


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_nothing_is_shown_of_another_namespace(prometheus: PrometheusServer, board: Path) -> None:
    for panel, expr in panel_queries(board, namespace="elsewhere"):
        if "namespace" in expr and "vector(0)" not in expr:
            assert prometheus.query(expr) == [], panel


def test_boards_reach_grafanas_sidecar_unchanged(render: Any) -> None:
    (config_map,) = [o for o in render() if o["kind"] == "ConfigMap"]
    assert config_map["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert config_map["data"].keys() == {board.name for board in BOARDS}
    for board in BOARDS:
        assert json.loads(config_map["data"][board.name]) == json.loads(board.read_text())


def test_a_query_with_an_unknown_variable_is_refused() -> None:
    board = {"panels": [{"title": "x", "type": "stat", "targets": [{"expr": 'up{pod=~"$pod"}'}]}]}
    with pytest.raises(ValueError, match=r"\$pod"):
        panel_queries(board)


def test_monitors_follow_watch_namespaces(render: Any) -> None:
    def selector(values: dict[str, Any]) -> Any:
        return next(o for o in render(values) if o["kind"] == "PodMonitor")["spec"]["namespaceSelector"]

    assert selector(ENABLED) == {"any": True}
    assert selector(ENABLED | {"watchNamespaces": ["a", "b"]}) == {"matchNames": ["a", "b"]}


def test_nothing_of_prometheus_operator_is_installed_by_default(render: Any) -> None:
    assert not [o for o in render() if o["apiVersion"].startswith("monitoring.coreos.com")]


def test_rule_object_holds_the_alerts_unchanged(render: Any) -> None:
    (rule,) = [o for o in render(ENABLED) if o["kind"] == "PrometheusRule"]
    groups = [group for file in (RECORDINGS, ALERTS) for group in yaml.safe_load(file.read_text())["groups"]]
    for written in groups[-2:]:
        for alert in written["rules"]:
            del alert["annotations"]["runbook_url"]  # nothing says where the site is
    assert rule["spec"] == {"groups": groups}


def test_alerts_use_the_contracts_metrics_only() -> None:
    for group in yaml.safe_load(ALERTS.read_text())["groups"]:
        for rule in group["rules"]:
            assert metric_names(rule["expr"]) <= NAMES, rule["alert"]


@pytest.mark.parametrize(
    ("runbooks", "page"),
    [
        ("https://docs.example.com/distill", "https://docs.example.com/distill/observability/"),
        ("https://docs.example.com/", "https://docs.example.com/observability/"),
        ("https://git.example.com/d/docs/observability.md", "https://git.example.com/d/docs/observability.md"),
    ],
)
def test_runbooks_are_where_the_installation_says(render: Any, runbooks: str, page: str) -> None:
    values = {"monitoring": {"prometheusRule": {"enabled": True, "runbooks": runbooks}}}
    (rule,) = [o for o in render(values) if o["kind"] == "PrometheusRule"]
    alerts = [found for group in rule["spec"]["groups"] for found in group["rules"] if "alert" in found]
    assert len(alerts) >= 14
    for alert in alerts:
        assert alert["annotations"]["runbook_url"] == f"{page}#{alert['alert'].lower()}"


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    scenarios = Path(__file__).with_name("alerts.scenarios.yaml")
    done = subprocess.run(
        ["promtool", "test", "rules", scenarios.name],
        cwd=scenarios.parent,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_scenario_with_it_and_one_without() -> None:
    scenarios = yaml.safe_load(Path(__file__).with_name("alerts.scenarios.yaml").read_text())
    cases = [case for test in scenarios["tests"] for case in test.get("alert_rule_test", ())]
    fires = {case["alertname"] for case in cases if case["exp_alerts"]}
    silent = {case["alertname"] for case in cases if not case["exp_alerts"]}
    alerts = {rule["alert"] for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]}
    assert fires == silent == alerts
