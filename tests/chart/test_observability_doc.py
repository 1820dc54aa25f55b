"""docs/observability.md names every metric, alert and row that exists, and none that does not."""

import asyncio
import json
import re
import subprocess
from urllib.request import urlopen

import yaml
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from distill_api.metrics import OperatorMetric, TrainerMetric
from distill_local.trainer_process import free_port
from distill_operator.controller.telemetry.http import HttpServer
from distill_trainer.process.telemetry.server import StatusServer
from tests.chart.conftest import operator_metrics, rank_metrics
from tests.support.machine.python import ROOT

DOC = (ROOT / "docs" / "observability.md").read_text()
CHART = ROOT / "charts" / "distill-operator"


def test_metrics_table_is_complete() -> None:
    documented = set(re.findall(r"^\| `(distill_\w+)` \|", DOC, re.MULTILINE))
    names = {
        str(value)
        for kind in (TrainerMetric, OperatorMetric)
        for field, value in vars(kind).items()
        if not field.startswith("_")
    }
    assert documented == names


def test_a_name_says_type_and_unit() -> None:
    """As Prometheus' own guide asks: counters end in _total, times are in seconds, sizes in bytes."""
    for name, kind in re.findall(r"^\| `(distill_\w+)` \| (\w+) \|", DOC, re.MULTILINE):
        assert name.endswith("_total") == (kind == "counter"), name
        if kind == "histogram":
            assert name.endswith("_seconds"), name
        assert not re.search(r"_(ms|milliseconds|minutes|hours|kb|mb|gb|percent)(_|$)", name), name
        if re.search(r"_(time|duration|interval|stall|persist|wait|timestamp|age)(_|$)", name):
            assert re.search(r"_seconds(_total)?$", name), name
        if "memory" in name:
            assert name.endswith("_bytes"), name


def accepted(served: bytes) -> None:
    """promtool's lint has nothing to say, and every metric has a help text."""
    done = subprocess.run(["promtool", "check", "metrics"], input=served, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b""), done.stderr.decode()
    for family in text_string_to_metric_families(served.decode()):
        assert family.documentation, family.name


def test_promtool_accepts_what_a_rank_serves() -> None:
    server = StatusServer(0, {"/metrics": ("text/plain", lambda: generate_latest(rank_metrics(0)))}, "127.0.0.1")
    try:
        with urlopen(f"http://127.0.0.1:{server.port}/metrics") as answer:
            accepted(answer.read())
    finally:
        server.close()


def test_promtool_accepts_what_the_operator_serves() -> None:
    async def served() -> bytes:
        server, port = HttpServer(operator_metrics(), lambda: None, lambda: None), free_port()
        await server.start(free_port(), port)
        try:
            answer = await asyncio.to_thread(urlopen, f"http://127.0.0.1:{port}/metrics")
            with answer:
                return bytes(answer.read())
        finally:
            await server.stop()

    accepted(asyncio.run(served()))


def test_labels_in_the_table_are_those_that_the_metrics_have(exporters: dict[str, int]) -> None:
    documented = {
        name: {label for label in labels.strip().split(", ") if label}
        for name, labels in re.findall(r"^\| `(distill_\w+)` \| \w+ \|([\w, ]*)\|", DOC, re.MULTILINE)
    }
    seen = set()
    for source in ("rank0", "operator"):
        with urlopen(f"http://127.0.0.1:{exporters[source]}/metrics") as answer:
            for family in text_string_to_metric_families(answer.read().decode()):
                name = family.name + ("_total" if family.type == "counter" else "")
                for sample in family.samples:
                    if name in documented:
                        assert sample.labels.keys() - {"le"} == documented[name], name
                        seen.add(name)
    assert len(seen) >= 30


def test_every_alert_has_its_runbook() -> None:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert re.findall(r"^### (\w+)$", DOC, re.MULTILINE) == [rule["alert"] for rule in rules]
    for rule in rules:
        assert rule["annotations"]["runbook_url"] == f"observability/#{rule['alert'].lower()}"
        assert rule["annotations"].keys() == {"summary", "description", "runbook_url"}
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert rule["for"], "an alert waits for a second look"


def test_every_row_is_explained() -> None:
    for path in (CHART / "dashboards").glob("*.json"):
        board = json.loads(path.read_text())
        assert f"`{path.name}`" in DOC
        for panel in board["panels"]:
            if panel["type"] == "row":
                assert f"| {board['title'].split()[-1].capitalize()} | {panel['title']} |" in DOC
