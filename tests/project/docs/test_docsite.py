"""The documentation site's pages: links, and Markdown that GitHub and the site read in different ways.

In a strict build a link that leads nowhere is an error.
"""

import re
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from docsite.dialect import converted
from docsite.hook import PAGES
from docsite.links import rewritten
from testcluster.artifacts import binaries
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    if find_spec("mkdocs") is None:
        leave_out("mkdocs is not installed; run `make venv`")
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(["scripts/docs.sh", folder], cwd=ROOT, check=True)
    return folder


def test_the_site_is_built_without_a_warning(site: Path) -> None:
    for page in ("index.html", "distilljob/index.html", "tutorials/spot/index.html", "security/index.html"):
        assert (site / page).is_file(), page
    assert 'id="spectraining"' in (site / "distilljob/index.html").read_text(), "GitHub's anchors"
    assert "<li>" in (site / "changelog/index.html").read_text()


def test_runbooks_of_alerts_lead_to_sections_of_the_site(site: Path) -> None:
    address = "https://docs.example.com/distill"
    values = {"monitoring": {"prometheusRule": {"enabled": True, "runbooks": address}}}
    command = [binaries.helm(), "template", "distill", ROOT / "charts/distill-operator", "--values", "-"]
    shown = ["--api-versions", "monitoring.coreos.com/v1", "--show-only", "templates/prometheusrule.yaml"]
    done = subprocess.run([*command, *shown], input=yaml.safe_dump(values), capture_output=True, text=True, check=True)
    rules = [rule for group in yaml.safe_load(done.stdout)["spec"]["groups"] for rule in group["rules"]]
    alerts = [rule for rule in rules if "alert" in rule]
    assert alerts
    for alert in alerts:
        page, _, anchor = alert["annotations"]["runbook_url"].removeprefix(f"{address}/").partition("#")
        assert page.endswith("/"), "a server of static files redirects a folder's name without a slash"
        assert re.search(rf'<h3 id="{anchor}">{alert["alert"]}<', (site / page / "index.html").read_text())
