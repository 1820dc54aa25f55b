"""Calls of kubectl in the documents: verbs, kinds, fields and conditions exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import ConditionType
from tests.support.documents import DOCUMENTS, commands, every_document, spans
from tests.support.machine.python import ROOT

CRD = yaml.safe_load((ROOT / "crds/distilljob.yaml").read_text())["spec"]
OURS = {CRD["names"]["plural"], CRD["names"]["singular"], *CRD["names"]["shortNames"]}
KINDS = {*OURS, "pod", "pods", "job", "jobs", "pvc", "node", "nodes", "configmap", "secret", "deployment", "events"}
ON_KINDS = {"get", "describe", "delete", "wait", "scale", "label", "patch", "create", "explain"}
VERBS = {*ON_KINDS, "apply", "exec", "cp", "logs", "drain", "uncordon", "version", "port-forward", "distill"}
WITH_VALUE = {"-n", "-f", "-l", "-o", "-p", "-c"}
"""Options whose value is the next word."""


def calls(document: Path) -> Iterator[list[str]]:
    yield from commands(document, "kubectl")
    yield from spans(document, "kubectl")


def arguments(words: list[str]) -> list[str]:
    """What is no option, nor the value of one."""
    return [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not word.startswith("-") and before not in WITH_VALUE
    ]


def check(words: list[str]) -> None:
    """The call of kubectl is right, as far as its words say."""
    verb, *rest = arguments(words[1:])
    assert verb in VERBS, f"kubectl has no {verb}"
    kinds = {re.split(r"[/.]", rest[0])[0]} if rest and verb in ON_KINDS else set()
    assert kinds <= KINDS, f"there is no kind {kinds}"
    if not kinds <= OURS:
        return
    for path in paths_of(words, explained=rest[0] if verb == "explain" and rest else ""):
        check_path(path)
    for condition in re.findall(r"--for=condition=(\w+)", " ".join(words)):
        assert condition in set(ConditionType), f"there is no condition {condition}"


def paths_of(words: list[str], explained: str) -> Iterator[str]:
    yield from [explained.partition(".")[2]] if "." in explained else ()
    for word in words:
        if word.startswith("jsonpath="):
            yield from in_jsonpath(word.removeprefix("jsonpath="))


def in_jsonpath(template: str) -> Iterator[str]:
    """The paths from the object, such as status.attempts[*].reason; a list of objects is left out."""
    loops: list[str] = []
    for part in re.findall(r"\{([^{}]*)\}", template):
        if part == "end":
            loops.pop()
        elif not part.startswith(('"', "'")):
            path = (loops[-1] if loops else "") + part.removeprefix("range ").strip()
            if part.startswith("range "):
                loops.append(path)
            yield path.removeprefix(".").removeprefix("items[*]").removeprefix(".")


def check_path(path: str) -> None:
    (version,) = CRD["versions"]
    node: Any = {"properties": version["schema"]["openAPIV3Schema"]["properties"]}
    for step in re.findall(r"\w+|\[[^\]]*\]", path):
        if path.startswith("metadata."):
            assert re.fullmatch(r"metadata\.(name|namespace|uid|labels|annotations)\b.*", path), path
            return
        node = node.get("items") if step.startswith("[") else node.get("properties", {}).get(step)
        assert node is not None, f"{path} does not exist"


@every_document
def test_every_call_of_kubectl_is_right(document: Path) -> None:
    for words in calls(document):
        check(words)


@pytest.mark.parametrize(
    ("call", "complaint"),
    [
        ("kubectl -n a gte dj", "gte"),
        ("kubectl get djs", "djs"),
        ("kubectl scale distiljob/a --replicas=1", "distiljob"),
        ("kubectl wait --for=condition=Completed dj/a", "Completed"),
        ("kubectl explain dj.spec.trainin", "spec.trainin"),
        ("kubectl get dj a -o jsonpath={.status.goodputs}", "status.goodputs"),
        ("kubectl get dj a -o jsonpath={.status.attempts[0].reasn}", "reasn"),
        ('kubectl get dj -o jsonpath={range .items[*].status.avoidedNodes[*]}{.nod}{"\\n"}{end}', "nod"),
        ("kubectl get dj -o jsonpath={.items[*].metadata.nam}", "nam"),
    ],
)
def test_a_call_that_is_wrong_is_found(call: str, complaint: str) -> None:
    verb, _, template = call.partition(" -o ")
    with pytest.raises(AssertionError, match=complaint):
        check([*verb.split(), *(["-o", template] if template else [])])


def test_documents_have_calls_to_check() -> None:
    found = [words for document in DOCUMENTS for words in calls(document)]
    assert len(found) >= 25
    assert sum("jsonpath" in word for words in found for word in words) >= 3
