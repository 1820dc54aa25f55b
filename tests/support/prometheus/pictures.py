"""Which panels of two pictures of a board differ: those that show something, when the other picture is of no job."""

import json
from pathlib import Path

from PIL import Image, ImageChops

from dashboards.preview import page

TITLE = 30
"""Pixels at a panel's upper edge."""


def differing_panels(board: Path, one: Path, other: Path) -> set[str]:
    """Titles of the open panels whose contents are not the same in both pictures."""
    first, second = (Image.open(picture).convert("RGB") for picture in (one, other))
    assert first.size == second.size
    found = set()
    for panel in page.open_panels(json.loads(board.read_text())):
        left, bottom, width, height = page.box(panel, first.height)
        inside = tuple(
            round(edge) for edge in (left, first.height - bottom - height + TITLE, left + width, first.height - bottom)
        )
        if panel["type"] != "row" and ImageChops.difference(first.crop(inside), second.crop(inside)).getbbox():
            found.add(panel["title"])
    return found
