"""Commands in the documents: the command line, the chart and the contract accept them."""

import json
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from distill_api.job import InvalidJob, parse_job
from distill_api.spec.training import Training
from distill_cli.main import load
from distill_cli.registry import COMMANDS
from tests.support.documents import DOCUMENTS, MINIMAL, commands, every_document
from tests.support.machine.python import ROOT

CHART = ROOT / "charts/distill-operator"
VALUES = json.loads((CHART / "values.schema.json").read_text())


@every_document
def test_every_distill_command_parses(document: Path) -> None:
    for words in commands(document, "distill", "kubectl distill"):
        name, *arguments = words[2:] if words[0] == "kubectl" else words[1:]
        assert name in COMMANDS, f"distill has no command {name}"
        load(name).make_context(name, arguments)


@every_document
def test_every_module_that_is_run_has_the_options(document: Path) -> None:
    for module, rest in re.findall(r"python -m ([\w.]+)((?: [^`\n#]*)?)", document.read_text()):
        if (spec := find_spec(module)) is None or "site-packages" in str(spec.origin):
            assert module in ("pip", "pytest", "venv"), f"there is no module {module}"
            continue
        folder = Path(str(spec.origin))
        sources = folder.parent.glob("*.py") if folder.name == "__init__.py" else [folder]
        text = "\n".join(source.read_text() for source in sources)
        for option in re.findall(r"(?<=\s)--[a-z-]+", rest):
            assert option == "--help" or f'"{option}"' in text, f"{module} has no option {option}"


@every_document
def test_every_target_of_an_image_exists(document: Path) -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    named = set(re.findall(r"docker build [^`\n]*--target (\w+)", document.read_text()))
    assert named <= targets


@every_document
def test_every_value_of_the_chart_exists(document: Path) -> None:
    for words in commands(document, "helm install", "helm upgrade"):
        settings = [after for before, after in pairwise(words) if before.startswith("--set")]
        for setting in settings:
            for name in re.findall(r"(?:^|,)([A-Za-z][\w.\[\]]*)=", setting):
                assert in_chart(name.split(".")), f"the chart has no value {name}"
        charts = [word for word in words if word.startswith("charts/")]
        assert all((ROOT / chart / "Chart.yaml").exists() for chart in charts)


def in_chart(path: list[str], schema: Any = None) -> bool:
    schema = VALUES if schema is None else schema
    if not path:
        return True
    inner = schema.get("properties", {}).get(path[0].partition("[")[0])
    return in_chart(path[1:], inner) if inner is not None else "additionalProperties" not in schema


def test_documents_have_commands_to_check() -> None:
    """These tests would pass as well if nothing were found."""
    calls = [call for document in DOCUMENTS for call in commands(document, "distill")]
    helm = [call for document in DOCUMENTS for call in commands(document, "helm install", "helm upgrade")]
    assert (len(calls) >= 25, len(helm) >= 5) == (True, True)


MIGRATING = ROOT / "docs/migrating.md"


def rows(heading: str) -> dict[str, str]:
    """The second cell of each argument in the table below a heading of docs/migrating.md."""
    section = MIGRATING.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    table = [line.split("|")[1:3] for line in section.splitlines() if line.startswith("| `")]
    return {name: what for names, what in table if "yolo" not in names for name in re.findall(r"`(\w+)`", names)}


def test_every_argument_of_ultralytics_is_migrated() -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    elsewhere, gone = rows("Arguments that are elsewhere"), rows("Arguments that a job has not")
    assert not set(elsewhere) & set(gone)
    assert set(elsewhere) | set(gone) == set(DEFAULT_CFG_DICT) - set(Training.model_fields)
    for name in {*elsewhere, *gone}:
        known = rf"training has no {name}: " if name in gone else r"(unknown field; use |training has no )"
        with pytest.raises(InvalidJob, match=rf"spec\.training\.{name}: {known}"):
            parse_job({"metadata": {"name": "job"}, "spec": {**MINIMAL, "training": {name: 1}}})
