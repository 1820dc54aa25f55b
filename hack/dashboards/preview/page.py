"""A board as one picture: rows and panels at their places, in Grafana's dark look."""

import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dashboards.preview.source import Source
from dashboards.preview.texts import Panel, color

BACKGROUND, SURFACE, BORDER = "#111217", "#181B1F", "#25282D"
TEXT, DIM, FAINT = "#CCCCDC", "#8E8E9A", "#2A2D33"
SMALL: Final = 8.0
"""Size of small text, in points."""

DOTS_PER_INCH: Final = 100
WIDTH: Final = 1680
UNIT: Final = 37
"""Pixels: of a page's width, and of a unit of a panel's height."""
GAP: Final = 8
HEADER: Final = 62
LETTER: Final = 6.9
"""Pixels of a letter of small text, on average."""
COLORS: Final = 200
"""In the file, so that it stays small."""
PANELS: Final = "Panels"
"""Name of the text in a picture's file that has the titles of its panels."""


class Canvas:
    """One panel's place on the page; shares of it count from its lower left corner."""

    def __init__(self, figure: Figure, box: tuple[float, float, float, float], marks: list[tuple[float, str]]) -> None:
        """`box`: left, bottom, width and height in pixels. `marks`: times and colours of annotations."""
        self._figure, self._marks = figure, marks
        self._left, self._bottom, self.width, self.height = box
        self._size = figure.get_size_inches() * DOTS_PER_INCH

    def axes(self, left: float, bottom: float, width: float, height: float, *, top: float | None = None) -> Axes:
        """Axes in a part of the panel. `top`: pixels to leave free above, instead of `height`."""
        if top is not None:
            height = 1 - bottom - top / self.height
        x, y = self._left + left * self.width, self._bottom + bottom * self.height
        place = (x / self._size[0], y / self._size[1])
        size = (width * self.width / self._size[0], height * self.height / self._size[1])
        axes = self._figure.add_axes((*place, *size))
        axes.set_facecolor("none")
        for spine in axes.spines.values():
            spine.set_visible(False)
        return axes

    def text(self, x: float, y: float, text: str, *, size: float, **style: Any) -> None:
        """Text at a place in the panel."""
        at = ((self._left + x * self.width) / self._size[0], (self._bottom + y * self.height) / self._size[1])
        self._figure.text(*at, text, fontsize=size, **style)

    def marks(self, axes: Axes) -> None:
        """The annotations, in a graph."""
        for moment, tint in self._marks:
            axes.axvline(moment, color=tint, linewidth=0.9, linestyle=(0, (3, 3)), alpha=0.9, zorder=0.5)
            axes.plot(
                [moment], [0], marker="^", markersize=4, color=tint, clip_on=False, transform=axes.get_xaxis_transform()
            )

    def legend_rows(self, names: Iterable[str]) -> int:
        """Lines that a legend of these names needs, at most three."""
        return min(3, max((row for _, row in self._flow(names)), default=0) + 1)

    def legend(self, entries: list[tuple[str, str, str]], rows: int) -> None:
        """Names with their colours and last values, below the graph."""
        for (name, tint, value), (left, row) in zip(entries, self._flow(name for name, _, _ in entries), strict=True):
            if row >= rows:
                return
            bottom = (9 + 17 * (rows - 1 - row)) / self.height
            self.text(left / self.width, bottom, "━", size=SMALL, color=tint)
            self.text((left + 15) / self.width, bottom, name, size=SMALL, color=TEXT)
            self.text((left + 22 + LETTER * len(name)) / self.width, bottom, value, size=SMALL, color=DIM)

    def _flow(self, names: Iterable[str]) -> Iterator[tuple[float, int]]:
        """Left edge and line of each entry."""
        left, row = 12.0, 0
        for name in names:
            wide = 22 + LETTER * len(name) + 64
            if left + wide > self.width and left > 12:
                left, row = 12.0, row + 1
            yield left, row
            left += wide


def draw(board: Mapping[str, Any], source: Source, path: Path, subtitle: str) -> None:
    """Write the board's picture to `path`, a PNG; rows that are closed are left out."""
    from dashboards.preview.drawing import DRAWINGS

    panels = open_panels(board)
    height = HEADER + UNIT * max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) + GAP
    with mpl.rc_context({"font.family": "DejaVu Sans", "text.color": TEXT, "axes.unicode_minus": False}):
        figure = Figure((WIDTH / DOTS_PER_INCH, height / DOTS_PER_INCH), dpi=DOTS_PER_INCH, facecolor=BACKGROUND)
        marks = _marks(board, source)
        page = Canvas(figure, (0, 0, WIDTH, height), [])
        page.text(16 / WIDTH, 1 - 30 / height, board["title"], size=15, weight="bold", color=TEXT)
        page.text(16 / WIDTH, 1 - 50 / height, subtitle, size=9, color=DIM)
        for panel in panels:
            canvas = Canvas(figure, box(panel, height), marks)
            if panel["type"] == "row":
                canvas.text(0.006, 0.28, f"▾ {panel['title']}", size=10.5, weight="bold", color=TEXT)
            else:
                _frame(figure, box(panel, height))
                canvas.text(
                    11 / canvas.width, 1 - 22 / canvas.height, panel["title"], size=9, weight="bold", color=TEXT
                )
                DRAWINGS[panel["type"]](canvas, panel, source)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
    picture = Image.open(buffer).convert("RGB").quantize(COLORS, dither=Image.Dither.NONE)
    _save(picture, path, panels)


def draw_top(board: Mapping[str, Any], picture: Path, path: Path, below: str) -> None:
    """Write the upper part of a board's picture to `path`: what is above the row with the title `below`."""
    (row,) = (panel for panel in board["panels"] if panel["type"] == "row" and panel["title"] == below)
    above = [panel for panel in open_panels(board) if panel["gridPos"]["y"] < row["gridPos"]["y"]]
    whole = Image.open(picture)
    _save(whole.crop((0, 0, whole.width, HEADER + row["gridPos"]["y"] * UNIT)), path, above)


def open_panels(board: Mapping[str, Any]) -> list[Panel]:
    """The board's panels and rows that a picture shows: no closed rows."""
    return [panel for panel in board["panels"] if not panel.get("collapsed")]


def titles(panels: Iterable[Panel]) -> str:
    """The panels' titles, one a line: a picture's file has them as the text PANELS."""
    return "\n".join(panel["title"] for panel in panels if panel["type"] != "row")


def _save(picture: Image.Image, path: Path, panels: Iterable[Panel]) -> None:
    texts = PngInfo()
    texts.add_itxt(PANELS, titles(panels))
    picture.save(path, optimize=True, pnginfo=texts)


def _marks(board: Mapping[str, Any], source: Source) -> list[tuple[float, str]]:
    listed = board["annotations"]["list"]
    return [(moment, color(found["iconColor"])) for found in listed for moment, _ in source.marks(found)]


def box(panel: Panel, height: float) -> tuple[float, float, float, float]:
    """A panel's left, bottom, width and height in pixels, on a page of this height."""
    grid, column = panel["gridPos"], (WIDTH - GAP) / 24
    left, top = GAP + grid["x"] * column, HEADER + grid["y"] * UNIT
    tall = grid["h"] * UNIT - GAP
    return left, height - top - tall, grid["w"] * column - GAP, tall


def _frame(figure: Figure, box: tuple[float, float, float, float]) -> None:
    size = figure.get_size_inches() * DOTS_PER_INCH
    place, extent = (box[0] / size[0], box[1] / size[1]), (box[2] / size[0], box[3] / size[1])
    patch = FancyBboxPatch(
        place, *extent, boxstyle="square,pad=0", facecolor=SURFACE, edgecolor=BORDER, linewidth=1, zorder=-1
    )
    figure.add_artist(patch)
