"""What the documents name exists: files, modules, tests, links, make targets, fields of a DistillJob."""

import ast
import importlib.util
import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.support.documents import every_document
from tests.support.machine.python import ROOT

SOURCES = (
    *("crds", "operator", "trainer", "cli", "charts", "images", "scripts"),
    *("tests", "hack", "benchmarks", "examples"),
)


def code(document: Path) -> str:
    """The document's code: spans and blocks, one a line."""
    text = document.read_text()
    blocks = re.findall(r"^ *```.*?^ *```$", text, re.DOTALL | re.MULTILINE)
    for block in blocks:
        text = text.replace(block, "")
    return "\n".join([*re.findall(r"`([^`\n]+)`", text), *blocks])


@cache
def files() -> frozenset[str]:
    """Every file of the project, relative to its root."""
    found = [path for folder in SOURCES for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
    return frozenset(str(path.relative_to(ROOT)) for path in found if path.is_file())


@cache
def known_tests() -> frozenset[str]:
    """Every file of tests, and every test as path.py::name, relative to the root."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        file = str(path.relative_to(ROOT))
        nodes = ast.parse(path.read_text()).body
        found |= {file, *(f"{file}::{node.name}" for node in nodes if isinstance(node, ast.FunctionDef))}
    return frozenset(found)


@every_document
def test_every_file_exists(document: Path) -> None:
    """A file may be named by the end of its path; one of Ultralytics by its path in that package."""
    (ultralytics,) = importlib.util.find_spec("ultralytics").submodule_search_locations
    for name in re.findall(r"(?<![\w./<*-])([\w-][\w./-]*\.(?:py|sh))\b", code(document)):
        if name.startswith("ultralytics/"):
            assert (Path(ultralytics).parent / name).exists(), name
        else:
            assert any(f"/{file}".endswith(f"/{name}") for file in files()), f"{name} does not exist"
    for name in re.findall(rf"(?<![\w./-])((?:{'|'.join(SOURCES)}|docs)/[\w./-]+\.\w+)", code(document)):
        assert (ROOT / name).exists(), f"{name} does not exist"


@every_document
def test_every_test_exists(document: Path) -> None:
    """It may be named by the end of its path, if that is the end of no other path."""
    for name in set(re.findall(r"(?<![\w./-])((?:[\w-]+/)*test_\w+\.py(?:::test_\w+)?)", document.read_text())):
        assert len([test for test in known_tests() if f"/{test}".endswith(f"/{name}")]) == 1, (
            f"{name} is not one test or file"
        )


@every_document
def test_every_module_exists(document: Path) -> None:
    for dotted in re.findall(r"\bdistill_(?:api|operator|trainer|local|cli)(?:\.\w+)+", code(document)):
        assert exists(dotted), f"{dotted} does not exist"
    for module, name in re.findall(r"^([a-z_]+)\.([A-Z]\w+)$", code(document), re.MULTILINE):
        homes = [ROOT / file for file in files() if file.endswith(f"/{module}.py")]
        assert any(re.search(rf"\bclass {name}\b", home.read_text()) for home in homes), f"{module}.{name}"


def exists(dotted: str) -> bool:
    """Whether a module exists and holds the rest of the name."""
    parts = dotted.split(".")
    for length in range(len(parts), 0, -1):
        path = "/".join(parts[:length])
        for file in (f"{path}.py", f"{path}/__init__.py"):
            homes = [ROOT / folder / file for folder in SOURCES if (ROOT / folder / file).exists()]
            if homes and (length > 1 or len(parts) == 2):
                return all(re.search(rf"\b{part}\b", homes[0].read_text()) for part in parts[length:])
    return False


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]*))?\)", document.read_text()):
        path = (document.parent / target).resolve() if target else document
        assert path.exists(), f"{target} does not exist"
        assert not anchor or anchor in headings(path), f"{target}#{anchor} does not exist"


def headings(document: Path) -> list[str]:
    """The anchors that GitHub gives to headings."""
    titles = re.findall(r"^#+ (.+)$", document.read_text(), re.MULTILINE)
    return [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles]


@every_document
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", code(document)))
    assert named <= targets, f"{named - targets} do not exist"


@every_document
def test_every_field_of_a_job_exists(document: Path) -> None:
    schema = yaml.safe_load((ROOT / "crds/distilljob.yaml").read_text())
    (version,) = schema["spec"]["versions"]
    for field in re.findall(r"(?<![\w./])(?:spec|status)(?:\.(?!py\b)\w+|\[\])+", code(document)):
        node: Any = version["schema"]["openAPIV3Schema"]
        for step in re.findall(r"\w+|\[\]", field):
            if node.get("x-kubernetes-preserve-unknown-fields") and "properties" not in node:
                break
            node = node.get("items") if step == "[]" else node.get("properties", {}).get(step)
            assert node is not None, f"{field} does not exist"


def test_every_deviation_names_its_test() -> None:
    rows = [line for line in (ROOT / "docs/deviations.md").read_text().splitlines() if line.startswith("|")]
    rows = [row for row in rows if "---" not in row and not row.endswith("| test |")]
    assert len(rows) > 40
    for row in rows:
        assert re.search(r"`test_\w+\.py::test_\w+`", row.split("|")[-2]), f"no test: {row}"
