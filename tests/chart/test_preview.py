"""Pictures of the boards: texts as Grafana writes them, and panels drawn from what a Prometheus answers."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from dashboards.preview import page
from dashboards.preview.__main__ import BELOW_TOP, TOP
from dashboards.preview.__main__ import BOARDS as PICTURE_OF
from dashboards.preview.drawing import DRAWINGS, tick_seconds
from dashboards.preview.prometheus import Series
from dashboards.preview.source import Source, Window
from dashboards.preview.texts import formatted, legend, mapped, shown, threshold_color
from tests.chart.test_monitoring import BOARDS
from tests.support.machine.python import ROOT
from tests.support.prometheus.dashboards import panels

PICTURES = ROOT / "docs" / "pictures"
JOB_BOARD = next(board for board in BOARDS if board.stem == "distilljob")


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0.4567, "percentunit", "45.7%"),
        (1.0, "percentunit", "100%"),
        (90, "s", "1.5 mins"),
        (0.25, "s", "250 ms"),
        (7200, "s", "2 hours"),
        (1536, "bytes", "1.5 KiB"),
        (12345, "short", "12.3 K"),
        (0.00123, "sci", "1.23e-03"),
        (0.0001, "none", "0.0001"),
        (math.inf, "s", "∞"),
        (math.nan, "s", "–"),
    ],
)
def test_values_have_their_unit(value: float, unit: str, text: str) -> None:
    assert formatted(value, unit) == text


def test_names_and_colours_are_the_panels() -> None:
    red = {"id": "color", "value": {"mode": "fixed", "fixedColor": "#F2495C"}}
    override = {"matcher": {"options": "lost_work"}, "properties": [red, {"id": "displayName", "value": "lost work"}]}
    steps = [{"value": None, "color": "green"}, {"value": 5, "color": "orange"}]
    panel: dict[str, Any] = {"fieldConfig": {"defaults": {"thresholds": {"steps": steps}}, "overrides": [override]}}
    assert shown(panel, "lost_work", 0) == ("lost work", "#F2495C")
    assert shown(panel, "restart", 0)[0] == "restart"
    assert [threshold_color(value, panel) for value in (4, 5)] == ["#73BF69", "#FF9830"]
    assert legend("{{a}}/{{ b }}", {"a": "x"}) == "x/"
    assert mapped(3.0, [{"options": {"3": {"text": "Running", "color": "green"}}}]) == ("Running", "#73BF69")


@pytest.mark.parametrize(
    ("span", "inches", "seconds"), [(100, 8, 20), (100, 3.5, 60), (500, 16, 60), (500, 3.5, 120), (86_400, 8, 7200)]
)
def test_a_time_axis_has_as_many_labels_as_fit(span: float, inches: float, seconds: int) -> None:
    assert tick_seconds(span, inches) == seconds


def test_the_range_is_told_in_hours_and_minutes() -> None:
    assert Window(60, 200, 2).hours == "00:01 to 00:03 UTC"


class Answers:
    """A Prometheus that answers every query with the same two series."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        self.asked.append(expr)
        times = [start + index * step for index in range(int((end - start) / step))]
        return [self._series(name, times) for name in ("one", "two")]

    def instant(self, expr: str, at: float) -> list[Series]:
        self.asked.append(expr)
        return [self._series(name, [at]) for name in ("one", "two")]

    def _series(self, name: str, times: list[float]) -> Series:
        labels = {"namespace": "team", "distilljob": name, "kind": name, "attempt": "1"}
        return Series(labels, times, [1.0 + index % 3 for index in range(len(times))])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[str]]]:
    made = {}
    for board in BOARDS:
        answers, path = Answers(), tmp_path_factory.mktemp("pictures") / f"{board.stem}.png"
        source = Source(answers, Window(0, 600, 5), {"namespace": "team", "distilljob": "digits"})  # type: ignore[arg-type]
        page.draw(json.loads(board.read_text()), source, path, "team")
        made[board.stem] = (path, answers.asked)
    return made


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_every_open_panel_is_drawn(drawn: dict[str, tuple[Path, list[str]]], board: Path) -> None:
    loaded, (path, asked) = json.loads(board.read_text()), drawn[board.stem]
    picture = Image.open(path).convert("RGB")
    height = picture.height
    for panel in loaded["panels"]:
        if panel["type"] == "row" or panel.get("collapsed"):
            continue
        left, bottom, width, tall = page.box(panel, height)
        inside = picture.crop(
            (int(left) + 12, int(height - bottom - tall) + 34, int(left + width) - 4, int(height - bottom) - 4)
        )
        assert len(inside.getcolors(100_000) or []) > 3, f"{panel['title']} is blank"
    wanted = sum(len(p["targets"]) for p in loaded["panels"] if p["type"] != "row") + len(loaded["annotations"]["list"])
    assert len(asked) == wanted
    assert not [expr for expr in asked if "$" in expr]


def titles(picture: Path) -> list[str]:
    """The titles of its panels, as the file says."""
    return str(Image.open(picture).info[page.PANELS]).splitlines()


def open_titles(board: Path) -> list[str]:
    found = json.loads(board.read_text())["panels"]
    return [panel["title"] for panel in found if panel["type"] != "row" and not panel.get("collapsed")]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_a_picture_says_which_panels_it_shows(drawn: dict[str, tuple[Path, list[str]]], board: Path) -> None:
    assert titles(drawn[board.stem][0]) == open_titles(board)


def test_the_top_of_a_picture_ends_above_a_row(drawn: dict[str, tuple[Path, list[str]]], tmp_path: Path) -> None:
    whole, top = drawn["distilljob"][0], tmp_path / "top.png"
    board = json.loads(JOB_BOARD.read_text())
    page.draw_top(board, whole, top, BELOW_TOP)
    shown = titles(top)
    assert shown == titles(whole)[: len(shown)]
    height, cut = Image.open(whole).height, Image.open(top).height
    for panel in page.open_panels(board):
        if panel["type"] != "row":
            end = height - page.box(panel, height)[1]
            assert (end <= cut) == (panel["title"] in shown), panel["title"]


class OnePoint(Answers):
    """A Prometheus that has one point of each series, as of a job of two minutes where a graph has one each minute."""

    def range(self, expr: str, start: float, end: float, step: float) -> list[Series]:
        every = super().range(expr, start, end, step)
        return [Series(series.labels, series.times[30:31], series.values[30:31]) for series in every]


def test_a_point_that_stands_alone_is_drawn(tmp_path: Path) -> None:
    board, path = json.loads(JOB_BOARD.read_text()) | {"annotations": {"list": []}}, tmp_path / "board.png"
    source = Source(OnePoint(), Window(0, 120, 2), {"namespace": "team", "distilljob": "digits"})  # type: ignore[arg-type]
    page.draw(board, source, path, "team")
    picture = Image.open(path).convert("RGB")
    (panel,) = (panel for panel in page.open_panels(board) if panel["title"] == "Gradient norm")
    left, bottom, width, tall = page.box(panel, picture.height)
    above_the_legend = (left + 60, picture.height - bottom - tall + 34, left + width - 10, picture.height - bottom - 60)
    colors = picture.crop(tuple(round(edge) for edge in above_the_legend)).getcolors(100_000) or []
    assert any(max(color) - min(color) > 60 for _, color in colors)  # type: ignore[type-var]


def test_every_type_of_panel_can_be_drawn() -> None:
    assert {panel["type"] for board in BOARDS for panel in panels(json.loads(board.read_text()))} <= DRAWINGS.keys()


def test_the_readmes_picture_shows_the_first_panels_of_the_present_board() -> None:
    shown = titles(PICTURES / TOP)
    assert len(shown) >= 10
    assert shown == open_titles(JOB_BOARD)[: len(shown)]


@pytest.mark.parametrize("board", BOARDS, ids=lambda path: path.stem)
def test_the_pictures_of_the_docs_show_the_present_boards(board: Path) -> None:
    assert titles(PICTURES / PICTURE_OF[board.stem]) == open_titles(board)


@pytest.mark.parametrize("name", ["fleet.png", "job.png", TOP])
def test_the_pictures_of_the_docs_are_small(name: str) -> None:
    assert (PICTURES / name).stat().st_size <= 400_000
