"""docs/operator.md lists the rights that the chart gives, and every field that is refused in a pod template."""

import re
from collections import defaultdict

import yaml

from distill_api.spec.rules import pod_template
from tests.support.machine.python import ROOT

DOCUMENT = (ROOT / "docs/operator.md").read_text()
FILES = ROOT / "charts/distill-operator/files"
BY_THE_OPERATOR = "the operator"


def rows(heading: str) -> list[list[str]]:
    """The cells of the table below a heading, without its head."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_every_right_of_the_operator_has_its_reason() -> None:
    given: dict[str, set[str]] = defaultdict(set)
    rules = yaml.safe_load((FILES / "operator-rules.yaml").read_text())["rules"]
    rules += yaml.safe_load((FILES / "operator-rules-forced-deletion.yaml").read_text())
    for rule in rules:
        for resource in rule["resources"]:
            given[resource] |= set(rule["verbs"])
    told: dict[str, set[str]] = defaultdict(set)
    resource = ""
    for name, verbs, why in rows("What the operator may do, and why"):
        resource = name.strip("`").rpartition("/")[2] if name.startswith("`batch/") else name.strip("`") or resource
        assert why
        told[resource] |= set(verbs.split(", "))
    assert told == given


def test_every_refused_field_is_in_the_table() -> None:
    table = rows("What users may put into a pod")
    refused = {
        field for fields, _, who in table if who == BY_THE_OPERATOR for field in re.findall(r"`([^`]+)`", fields)
    }
    named = {part for field in refused for part in re.split(r"[.\[\]]+", field)}
    assert named >= {*pod_template.OWNED_POD_FIELDS, *pod_template.OWNED_TRAINER_FIELDS}
    assert named >= set(pod_template.PROJECTED_IDENTITIES)
    (volumes,) = [fields for fields, _, _ in table if fields.startswith("`volumes` named")]
    assert set(pod_template.OWNED_VOLUMES) == set(re.findall(r"\w+", volumes.removeprefix("`volumes` named")))
