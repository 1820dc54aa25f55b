"""The documentation site's pages: links, and Markdown that GitHub and the site read in different ways.

In a strict build a link that leads nowhere is an error.
"""

import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from docsite.dialect import converted
from docsite.hook import PAGES
from docsite.links import rewritten
from tests.support.documents import DOCUMENTS
from tests.support.machine.leaving_out import leave_out
from tests.support.machine.python import ROOT

REPOSITORY = "https://git.example/team/project/blob/main"


@pytest.mark.parametrize(
    ("source", "link", "expected"),
    [
        ("docs/operator.md", "[a](gpu.md#nccl)", "[a](gpu.md#nccl)"),
        ("docs/operator.md", "[a](#network)", "[a](#network)"),
        ("docs/operator.md", "[a](../SECURITY.md#x)", "[a](security.md#x)"),
        ("docs/decisions/0002-fence.md", "[a](../../CONTRIBUTING.md)", "[a](../contributing.md)"),
        ("docs/decisions/0002-fence.md", "[a](../gpu.md)", "[a](../gpu.md)"),
        ("README.md", "[a](docs/gpu.md#nccl)", "[a](gpu.md#nccl)"),
        ("README.md", '<img src="docs/pictures/job.png">', '<img src="pictures/job.png">'),
        ("README.md", "[a `b`](charts/x/values.yaml)", f"[a `b`]({REPOSITORY}/charts/x/values.yaml)"),
        ("docs/cli.md", "[a](../examples/a.ipynb)", f"[a]({REPOSITORY}/examples/a.ipynb)"),
        ("docs/cli.md", "[a](https://example.com/b.md)", "[a](https://example.com/b.md)"),
    ],
)
def test_a_link_leads_to_the_page_of_the_site_or_to_the_repository(source: str, link: str, expected: str) -> None:
    assert rewritten(link, source, PAGES, REPOSITORY) == expected


def test_without_a_repository_the_text_of_a_link_to_a_file_is_left() -> None:
    assert rewritten("see [the chart](../charts/x)", "docs/cli.md", PAGES, "") == "see the chart"


def test_lists_and_line_breaks_are_those_of_github() -> None:
    text = "Some:\n- one\n  more\n- two\n\n```\nx\n- y\\\n```\nBreak\\\nhere"
    assert converted(text) == "Some:\n\n- one\n  more\n- two\n\n```\nx\n- y\\\n```\nBreak  \nhere"


def test_the_navigation_has_every_page() -> None:
    """As a strict build asks for, without one."""
    text = (ROOT / "mkdocs.yml").read_text().partition("\nnav:\n")[2]

    def pages(part: object) -> set[str]:
        if isinstance(part, str):
            return {part}
        inner = part.values() if isinstance(part, dict) else part
        return set().union(*map(pages, inner))  # type: ignore[call-overload]

    docs = {str(path.relative_to(ROOT / "docs")) for path in DOCUMENTS if path.is_relative_to(ROOT / "docs")}
    assert pages(yaml.safe_load(text)) == docs | set(PAGES.values())


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    if find_spec("mkdocs") is None:
        leave_out("mkdocs is not installed; run `make venv`")
    subprocess.run(["scripts/docs.sh", tmp_path], cwd=ROOT, check=True)
    for page in ("index.html", "distilljob/index.html", "tutorials/spot/index.html", "security/index.html"):
        assert (tmp_path / page).is_file(), page
    assert 'id="spectraining"' in (tmp_path / "distilljob/index.html").read_text(), "GitHub's anchors"
    assert "<li>" in (tmp_path / "changelog/index.html").read_text()
