"""The generated CRD: up to date, structural, described on every field."""

import importlib.metadata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.generate.crd import COLUMNS, crd
from distill_api.spec.training import Training

ROOT = Path(__file__).parents[2]
SCHEMA = crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def fields(schema: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, sub in schema.get("properties", {}).items():
        yield f"{path}.{name}", sub
        yield from fields(sub, f"{path}.{name}")
    if "items" in schema:
        yield from fields(schema["items"], f"{path}[]")


def lookup(path: str) -> dict[str, Any]:
    node = SCHEMA
    for part in path.strip(".").split("."):
        node = node["properties"][part]
    return node


def test_the_committed_file_is_what_the_models_generate() -> None:
    committed = yaml.safe_load((ROOT / "crds" / "distilljob.yaml").read_text())
    assert committed == crd(), "run `make generate` and commit crds/distilljob.yaml"


def test_the_committed_file_has_no_yaml_anchors() -> None:
    tokens = yaml.scan((ROOT / "crds" / "distilljob.yaml").read_text())
    assert not [token for token in tokens if isinstance(token, yaml.AnchorToken | yaml.AliasToken)]


@pytest.mark.parametrize("part", ["spec", "status"])
def test_every_field_says_what_it_is(part: str) -> None:
    template = "spec.template."  # a pod template's fields are documented by Kubernetes
    silent = [
        path
        for path, schema in fields(SCHEMA["properties"][part], part)
        if not schema.get("description") and not path.startswith(template)
    ]
    assert silent == []


@pytest.mark.parametrize("part", ["spec", "status"])
def test_the_schema_is_structural(part: str) -> None:
    for path, schema in fields(SCHEMA["properties"][part], part):
        untyped = {"x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string"}
        assert "type" in schema or untyped & schema.keys(), path
        assert not {"$ref", "anyOf", "oneOf", "title", "$defs"} & schema.keys(), path


@pytest.mark.parametrize(("name", "path"), [(name, path) for name, _, path, _ in COLUMNS])
def test_every_printed_column_exists_in_the_schema(name: str, path: str) -> None:
    if path.startswith(".status"):
        assert lookup(path)["type"] in {"string", "integer", "number"}, name


def test_the_scale_subresource_sets_and_counts_nodes() -> None:
    scale = crd()["spec"]["versions"][0]["subresources"]["scale"]
    assert [lookup(path)["type"] for path in scale.values()] == ["integer", "integer"]
    assert scale["specReplicasPath"] == ".spec.nodes"


def test_training_defaults_are_those_of_the_pinned_ultralytics() -> None:
    files = importlib.metadata.files("ultralytics") or []
    (default,) = [file for file in files if str(file) == "ultralytics/cfg/default.yaml"]
    theirs = yaml.safe_load(Path(str(default.locate())).read_text())
    ours = Training().model_dump()
    ours["amp"] = {"auto": True}[ours["amp"]]
    ours["freeze"] = ours["freeze"] or None  # they write null where we write 0
    assert ours.pop("val_period") == 1, "Ultralytics validates every epoch"
    assert ours == {name: theirs[name] for name in ours}
