"""The API server takes every object of Kubernetes and every DistillJob in documents and examples; none is stored."""

from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from distill_api.constants import KIND
from tests.support.apiserver.api import Api, Object, Refused, make_namespace
from tests.support.documents import DOCUMENTS, in_yaml
from tests.support.machine.python import ROOT

TAKEN = ("PersistentVolumeClaim", "Pod", KIND)
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


def objects() -> Iterator[tuple[str, Object]]:
    """Each with the name of its file."""
    examples = {path: list(yaml.safe_load_all(path.read_text())) for path in (ROOT / "examples").rglob("*.yaml")}
    for path, parts in sorted({**examples, **{path: in_yaml(path) for path in DOCUMENTS}}.items()):
        for part in parts:
            if part.get("kind") in TAKEN:
                yield f"{path.relative_to(ROOT)} {part['kind']} {part['metadata']['name']}", part


OBJECTS = list(objects())


@pytest.fixture(scope="module")
def strict(api: Api) -> str:
    """A namespace for pods that the restricted Pod Security Standard admits."""
    make_namespace(api, "documents", **RESTRICTED)
    return "documents"


def tried(api: Api, namespace: str, obj: Object) -> Object:
    return api.create(obj, namespace, dryRun="All", fieldValidation="Strict")


@pytest.mark.parametrize("obj", [obj for _, obj in OBJECTS], ids=[name for name, _ in OBJECTS])
def test_the_api_server_takes_it(api: Api, strict: str, obj: Object) -> None:
    assert tried(api, strict, obj)["metadata"]["name"] == obj["metadata"]["name"]


def example(name: str, **spec: Any) -> Object:
    path = next(iter(ROOT.glob(f"examples/jobs/{name}.yaml")))
    obj: Object = next(iter(yaml.safe_load_all(path.read_text())))
    return {**obj, "spec": {**obj["spec"], **spec}}


@pytest.mark.parametrize(
    ("obj", "complaint"),
    [
        (example("claims", accessMode=["ReadWriteMany"]), 'unknown field "spec.accessMode"'),
        (example("claims", accessModes=["ReadWriteMost"]), "spec.accessModes"),
        (example("loader", restartPolicys="Never"), 'unknown field "spec.restartPolicys"'),
        (example("loader", securityContext={}), "violates PodSecurity"),
    ],
)
def test_a_mistake_in_one_would_be_found(api: Api, strict: str, obj: Object, complaint: str) -> None:
    with pytest.raises(Refused, match=complaint):
        tried(api, strict, obj)


def test_there_is_something_of_every_kind_to_take() -> None:
    assert {obj["kind"] for _, obj in OBJECTS} >= {"PersistentVolumeClaim", "Pod", KIND}
