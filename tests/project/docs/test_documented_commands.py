"""Commands and YAML in the documents: the command line, the chart and the contract accept them."""

import ast
import inspect
import json
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import KIND
from distill_api.job import InvalidJob, parse_job
from distill_api.spec.fields import DistillJobSpec
from distill_api.spec.training import Training
from distill_cli.main import load
from distill_cli.registry import COMMANDS
from distill_client import Client
from distill_local.notebook import distill
from tests.support.documents import DOCUMENTS, blocks, commands, every_document
from tests.support.machine.python import ROOT

CHART = ROOT / "charts/distill-operator"
VALUES = json.loads((CHART / "values.schema.json").read_text())
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
MINIMAL: dict[str, Any] = {
    "student": {"model": "yolo26n.yaml"},
    "teacher": {"model": "yolo26s.pt"},
    "dataset": {"config": "coco.yaml"},
    "volumes": {name: {"claimName": name} for name in ("checkpoints", "data", "models")},
}
FIELDS = {field.alias or name for name, field in DistillJobSpec.model_fields.items()}


def as_yaml(text: str) -> list[Any]:
    """The YAML documents in a block; an ellipsis stands for what readers fill in."""
    return list(yaml.safe_load_all(re.sub(r"\b([0-9a-f]{8})…", lambda match: match[1] * 8, text)))


def mappings(document: Path) -> list[dict[str, Any]]:
    found = [item for block in blocks(document) if block.language == "yaml" for item in as_yaml(block.text)]
    return [item for item in found if isinstance(item, dict)]


@every_document
def test_every_job_in_a_document_is_valid(document: Path) -> None:
    for job in mappings(document):
        if job.get("kind") == KIND:
            parse_job(job)


@every_document
def test_every_part_of_a_job_in_a_document_is_valid(document: Path) -> None:
    """A block with spec alone, or with some fields of spec, is valid with the fields that every job has."""
    for block in mappings(document):
        part = block["spec"] if set(block) == {"spec"} else block
        if part and set(part) <= FIELDS:
            merged = {**MINIMAL, **part}
            parse_job({"metadata": {"name": "job"}, "spec": merged})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_valid(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    for document in documents:
        if document["kind"] == KIND:
            parse_job(document)
        else:
            assert document["apiVersion"] == "v1", document["kind"]


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
def test_every_call_in_python_fits_client_and_notebook(document: Path) -> None:
    for block in blocks(document):
        for node in ast.walk(ast.parse(block.text)) if block.language == "python" else ():
            if isinstance(node, ast.Call):
                check_call(node)


def check_call(call: ast.Call) -> None:
    match call.func:
        case ast.Attribute(value=ast.Name(id="client"), attr=name):
            function, given = getattr(Client, name), [None, *call.args]
        case ast.Name(id="Client"):
            function, given = Client, list(call.args)
        case ast.Name(id="distill"):
            function, given = distill, list(call.args)
        case _:
            return
    keywords = {str(keyword.arg) for keyword in call.keywords}
    bound = inspect.signature(function).bind(*given, **dict.fromkeys(keywords))
    assert set(bound.arguments.get("training", {})) <= set(Training.model_fields)


@every_document
def test_every_value_of_the_chart_exists(document: Path) -> None:
    for words in commands(document, "helm install", "helm upgrade"):
        settings = [after for before, after in pairwise(words) if before.startswith("--set")]
        for setting in settings:
            for name in re.findall(r"(?:^|,)([A-Za-z][\w.\[\]]*)=", setting):
                assert in_chart(name.split(".")), f"the chart has no value {name}"
        charts = [word for word in words if word.startswith("charts/")]
        assert all((ROOT / chart / "Chart.yaml").exists() for chart in charts)
    for block in mappings(document):
        if set(block) <= set(VALUES["properties"]) and not set(block) <= FIELDS:
            check_values(block, VALUES, "")


def in_chart(path: list[str], schema: Any = None) -> bool:
    schema = VALUES if schema is None else schema
    if not path:
        return True
    inner = schema.get("properties", {}).get(path[0].partition("[")[0])
    return in_chart(path[1:], inner) if inner is not None else "additionalProperties" not in schema


def check_values(part: Any, schema: dict[str, Any], place: str) -> None:
    for name, value in part.items() if isinstance(part, dict) else ():
        assert in_chart([name], schema), f"the chart has no value {place}{name}"
        check_values(value, schema.get("properties", {}).get(name, {}), f"{place}{name}.")


@every_document
def test_every_field_that_kubectl_explains_or_prints_exists(document: Path) -> None:
    (version,) = yaml.safe_load((ROOT / "crds/distilljob.yaml").read_text())["spec"]["versions"]
    for words in commands(document, "kubectl"):
        said = " ".join(words)
        paths = re.findall(r"\bexplain (?:dj|distilljob)\.(\S+)", said) + re.findall(r"jsonpath=\{\.([\w.]+)\}", said)
        for path in paths:
            node = version["schema"]["openAPIV3Schema"]
            for step in path.split("."):
                node = node.get("properties", {}).get(step)
                assert node is not None, f"{path} does not exist"


def test_documents_have_jobs_and_commands_to_check() -> None:
    """These tests would pass as well if nothing were found."""
    jobs = [job for document in DOCUMENTS for job in mappings(document) if job.get("kind") == KIND]
    calls = [call for document in DOCUMENTS for call in commands(document, "distill")]
    helm = [call for document in DOCUMENTS for call in commands(document, "helm install", "helm upgrade")]
    assert (len(jobs) >= 8, len(calls) >= 25, len(helm) >= 5) == (True, True, True)


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
