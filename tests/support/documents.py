"""The project's Markdown files, and the code in them."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.support.machine.python import ROOT

WITH_DOCUMENTS = ("docs", "charts", "examples", "benchmarks", "tests")
DOCUMENTS = sorted({*ROOT.glob("*.md"), *(path for name in WITH_DOCUMENTS for path in (ROOT / name).rglob("*.md"))})
MINIMAL: dict[str, Any] = {
    "student": {"model": "yolo26n.yaml"},
    "teacher": {"model": "yolo26s.pt"},
    "dataset": {"config": "coco.yaml"},
    "volumes": {name: {"claimName": name} for name in ("checkpoints", "data", "models")},
}
"""The fields of spec that a part of a job is checked with."""
_SEPARATORS = re.compile(r"\s*(?:&&|\|\||[;|])\s*|<\(|\)\s*$")


class Block(NamedTuple):
    """A fenced block of code."""

    language: str
    text: str


def every_document(test: Any) -> Any:
    """Run the test for each document."""
    return pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))(test)


def blocks(document: Path) -> list[Block]:
    """The document's fenced blocks, without their indentation."""
    found = re.findall(r"^( *)```(\w*)\n(.*?)^ *```$", document.read_text(), re.DOTALL | re.MULTILINE)
    return [Block(language, re.sub(rf"^{indent}", "", text, flags=re.MULTILINE)) for indent, language, text in found]


def as_yaml(text: str) -> list[Any]:
    """The YAML documents in a text; an ellipsis stands for what readers fill in."""
    return list(yaml.safe_load_all(re.sub(r"\b([0-9a-f]{8})…", lambda match: match[1] * 8, text)))


def in_yaml(document: Path) -> list[Any]:
    """Everything in the document's YAML blocks."""
    return [part for block in blocks(document) if block.language == "yaml" for part in as_yaml(block.text)]


def spans(document: Path, program: str) -> Iterator[list[str]]:
    """The calls of the program within lines of text, as words."""
    text = re.sub(r"^ *```.*?^ *```$", "", document.read_text(), flags=re.DOTALL | re.MULTILINE)
    for call in re.findall(rf"`({program} [^`]+)`", text):
        yield shlex.split(call)


def commands(document: Path, *programs: str) -> Iterator[list[str]]:
    """The calls of these programs in the document's shell blocks, as words without redirections."""
    for block in blocks(document):
        if block.language not in ("", "sh", "bash", "console"):
            continue
        for line in re.sub(r"\\\n\s*", "", block.text).splitlines():
            for call in _SEPARATORS.split(re.sub(r"(^|\s)#.*", "", line)):
                if call.strip().startswith(tuple(f"{program} " for program in programs)):
                    yield [word for word in shlex.split(call) if not re.fullmatch(r"[12]?>.*", word)]
