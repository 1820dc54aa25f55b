"""Python in the documents: mypy knows every name and attribute, and calls fit the client and the notebook."""

import ast
import inspect
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill_api.spec.training import Training
from distill_client import Client
from distill_local.notebook import distill
from tests.support.documents import DOCUMENTS, blocks, every_document
from tests.support.machine.python import ROOT

Mypy = Callable[..., str]


def code(document: Path) -> str:
    """The document's Python; a block uses names of the blocks before it."""
    return "\n".join(block.text for block in blocks(document) if block.language == "python")


WITH_CODE = [document for document in DOCUMENTS if code(document)]


@pytest.fixture(scope="module")
def mypy(tmp_path_factory: pytest.TempPathFactory) -> Mypy:
    """What mypy says of these texts, by the project's own settings; it keeps in mind what it has read."""
    folder = tmp_path_factory.mktemp("mypy")

    def run(*texts: str) -> str:
        files = [folder / f"block{number}.py" for number in range(len(texts))]
        for file, text in zip(files, texts, strict=True):
            file.write_text(text)
        command = [sys.executable, "-m", "mypy", "--cache-dir", folder / "cache", *files]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300).stdout

    return run


def test_types_of_every_block_are_right(mypy: Mypy) -> None:
    said = mypy(*map(code, WITH_CODE))
    assert said.startswith("Success"), f"{said}\n{dict(enumerate(map(str, WITH_CODE)))}"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("print(job.status.progres)", 'has no attribute "progres"'),
        ("print(job.status.progress.stepp if job.status.progress else 0)", 'has no attribute "stepp"'),
        ("client.wait(job.name, timout=3)", "timout"),
        ("print(client.result(job.name).studentMap)", "studentMap"),
        ("print(jobs)", 'Name "jobs" is not defined'),
    ],
)
def test_a_misspelt_name_in_a_block_is_found(mypy: Mypy, line: str, complaint: str) -> None:
    start = 'from distill_client import Client\n\nclient = Client()\njob = client.create("job.yaml")\n'
    assert complaint in mypy(start + line)


@every_document
def test_every_call_in_python_fits_client_and_notebook(document: Path) -> None:
    for node in ast.walk(ast.parse(code(document))):
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


def test_documents_have_python_to_check() -> None:
    assert len(WITH_CODE) >= 3
