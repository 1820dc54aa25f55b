"""The README's first impression, as a real browser shows it with the sizes that GitHub gives to Markdown."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tests.support.machine.browser import Page, address_of, headless
from tests.support.machine.python import ROOT

TEXT = (ROOT / "README.md").read_text()
WIDTH = 838
"""Pixels of the column in which GitHub shows a README on a wide screen."""
SCREEN = 950
"""Pixels of such a screen's height that are left for the page."""
STYLE = """
body { margin: 0; font: 16px/1.5 "Noto Sans", Helvetica, Arial, sans-serif; overflow-wrap: break-word }
h1, h2 { margin: 24px 0 16px; padding-bottom: 0.3em; border-bottom: 1px solid; font-weight: 600; line-height: 1.25 }
h1 { font-size: 2em } h2 { font-size: 1.5em } body > :first-child { margin-top: 0 }
p, pre, table, ul { margin: 0 0 16px } ul { padding-left: 2em }
code { font-family: "Liberation Mono", monospace; font-size: 85%; padding: 0.2em 0.4em }
pre { padding: 16px; font-size: 13.6px; line-height: 1.45; overflow: auto } pre code { font-size: 100%; padding: 0 }
table { display: block; width: max-content; max-width: 100%; border-collapse: collapse }
th, td { padding: 6px 13px; border: 1px solid } img { max-width: 100% }
"""


@pytest.fixture(scope="module")
def readme(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The README in a browser."""
    shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(TEXT)
    base = f'<base href="{address_of(ROOT)}/">'
    file = tmp_path_factory.mktemp("readme") / "README.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{base}<style>{STYLE}</style>{shown}")
    with headless() as page:
        page.open(address_of(file), WIDTH)
        yield page


def test_it_fits_on_two_screens(readme: Page) -> None:
    assert readme.evaluate("document.documentElement.scrollHeight") <= 2 * SCREEN


def test_commands_figures_and_the_board_are_on_the_first_screen_and_a_half(readme: Page) -> None:
    def bottom(what: str) -> float:
        return float(readme.evaluate(f"document.querySelector('{what}').getBoundingClientRect().bottom"))

    assert readme.evaluate("document.querySelector('pre').innerText").splitlines()[0].startswith("make demo ")
    assert "make test " in readme.evaluate("document.querySelector('pre').innerText")
    assert "mAP50-95" in readme.evaluate("document.querySelector('table').previousElementSibling.innerText")
    assert bottom("table") <= SCREEN
    assert readme.evaluate("document.querySelector('img').naturalWidth") > 0, "the picture exists"
    assert bottom("img") <= 1.5 * SCREEN


def test_the_picture_leads_to_the_whole_board() -> None:
    (link, picture) = re.findall(r'<a href="(\S+)"><img src="(\S+)"', TEXT)[0]
    assert Path(link).name == "job.png"
    assert link != picture
