"""YAML in the documents: each block is a job, a part of one, values of the chart, or something else that is known."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import GROUP, KIND
from distill_api.job import InvalidJob, parse_job
from distill_api.spec.fields import DistillJobSpec
from testcluster.artifacts import binaries
from tests.support.documents import DOCUMENTS, MINIMAL, as_yaml, blocks, every_document, in_yaml
from tests.support.machine.python import ROOT

CHART = ROOT / "charts/distill-operator"
VALUES = set(yaml.safe_load((CHART / "values.yaml").read_text()))
EXAMPLES = sorted((ROOT / "examples").rglob("*.yaml"))
FIELDS = {field.alias or name for name, field in DistillJobSpec.model_fields.items()}
DATA_SET = {"path", "train", "val", "test", "names", "kpt_shape", "flip_idx"}
"""Keys of an Ultralytics data set."""
LANGUAGES = {"", "sh", "yaml", "python", "dockerfile"}
CORE = {"PersistentVolumeClaim": "v1", "Pod": "v1"}
"""These are tried on the API server: tests/apiserver/test_documents_on_the_api_server.py."""
KUEUE = ("ResourceFlavor", "ClusterQueue", "LocalQueue", "WorkloadPriorityClass")
VERSIONS = {**CORE, **dict.fromkeys(KUEUE, "kueue.x-k8s.io/v1beta2")}


def check(part: Any) -> str:
    """What this is, after a look at whether it is right. Raises InvalidJob or AssertionError if not."""
    assert isinstance(part, dict), f"{part!r} has no fields"
    assert part, "it is empty"
    keys = set(part)
    if keys & {"apiVersion", "kind"}:
        check_object(part)
        return str(part["kind"])
    if keys == {"spec"} or keys <= FIELDS:
        spec = {**MINIMAL, **(part["spec"] if keys == {"spec"} else part)}
        parse_job({"metadata": {"name": "job"}, "spec": spec})
        return "part of a job"
    if keys <= VALUES:
        check_values(part)
        return "values"
    if {"train", "val", "names"} <= keys <= DATA_SET:
        return "data set"
    if keys == {"data"}:
        assert all(isinstance(text, str) for text in part["data"].values()), "a ConfigMap's data are texts"
        assert all(key.endswith(f".{GROUP}_{KIND}") for key in part["data"]), "Argo CD calls a kind GROUP_KIND"
        return "data of a ConfigMap"
    raise AssertionError(f"{sorted(keys)}: no DistillJob, no part of one, no values of the chart, nothing else we know")


def check_object(part: dict[str, Any]) -> None:
    if part.get("kind") == KIND:
        parse_job(part)
        return
    assert part.get("kind") in VERSIONS, f"kind {part.get('kind')} is not in VERSIONS"
    assert part.get("apiVersion") == VERSIONS[part["kind"]], part["kind"]
    assert re.fullmatch(r"[a-z0-9-]+", part["metadata"]["name"]), "an object has a name"
    assert set(part) <= {"apiVersion", "kind", "metadata", "spec", "data", "value"}, part["kind"]


def check_values(values: dict[str, Any]) -> None:
    """Helm takes them, by the chart's schema."""
    command = [binaries.helm(), "template", "distill", CHART, "--values", "-"]
    done = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@every_document
def test_every_block_of_yaml_is_something_and_is_right(document: Path) -> None:
    for part in in_yaml(document):
        check(part)


@every_document
def test_every_block_says_what_language_it_is(document: Path) -> None:
    """One that does not would not be looked at."""
    for block in blocks(document):
        assert block.language in LANGUAGES
        if block.language != "yaml":
            assert not re.search(r"^ *(apiVersion|kind): ", block.text, re.MULTILINE), "call it yaml"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_example_is_valid(path: Path) -> None:
    documents = list(yaml.safe_load_all(path.read_text()))
    assert documents
    for document in documents:
        check_object(document)


JOB = "{apiVersion: distilljob.dev/v1alpha1, kind: DistillJob, metadata: {name: a}, spec: {student: {model: a.yaml}}}"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("distilation: {weight: 1}", "no part of one"),
        ("distillation: {wight: 1}", "wight"),
        ("spec: {distilation: {weight: 1}}", "distilation"),
        ("spec: {nodes: 2}\nstatus: {}", "no part of one"),
        ("monitorin: {podMonitor: {enabled: true}}", "no values"),
        ("monitoring: {podMonitors: {enabled: true}}", "podMonitors"),
        ("trainer: {userId: root}", "/trainer/userId"),
        ("replicas: 2\nnodes: 2", "nothing else"),
        (JOB, "dataset"),
        (JOB.replace("DistillJob", "DistilJob"), "DistilJob"),
        ("{apiVersion: v2, kind: PersistentVolumeClaim, metadata: {name: a}}", "PersistentVolumeClaim"),
        ("{apiVersion: kueue.x-k8s.io/v1beta2, kind: LocalQueue, metadata: {name: a}, specs: {}}", "LocalQueue"),
        ("{apiVersion: v1, spec: {}}", "kind None"),
        ("train: images\nval: images\nname: {0: a}", "no part of one"),
        ("data: {resource.customizations.health.distilljob.dev_DistilJob: a}", "Argo CD"),
        ("- a", "no fields"),
    ],
)
def test_a_block_that_is_wrong_or_nothing_is_found(text: str, complaint: str) -> None:
    (part,) = as_yaml(text)
    with pytest.raises((InvalidJob, AssertionError), match=complaint):
        check(part)


def test_documents_have_blocks_of_every_sort() -> None:
    """These tests would pass as well if nothing were found."""
    found = [check(part) for document in DOCUMENTS for part in in_yaml(document)]
    assert found.count(KIND) >= 8
    assert {"part of a job", "values", "data set", "data of a ConfigMap", *KUEUE} <= set(found)
