"""docs/observability.md names every metric, alert and row that exists, and none that does not."""

import json
import re
from urllib.request import urlopen

import yaml
from prometheus_client.parser import text_string_to_metric_families

from distill_api.metrics import OperatorMetric, TrainerMetric
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
        assert rule["annotations"]["runbook"].endswith(f"docs/observability.md#{rule['alert'].lower()}")


def test_every_row_is_explained() -> None:
    board = json.loads((CHART / "dashboards" / "distilljob.json").read_text())
    for panel in board["panels"]:
        if panel["type"] == "row":
            assert f"| {panel['title']} |" in DOC
