"""Plots with DejaVu Sans from Matplotlib's package, so that plots do not depend on the fonts of the machine.

Ultralytics searches for Arial in its settings directory, then in the system's fonts, then on the network, so plots
would differ between nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAMILY = "DejaVu Sans"


def font_file() -> Path:
    """The file of the font."""
    import matplotlib

    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


@contextmanager
def fixed_font() -> Iterator[None]:
    """Make Ultralytics and Matplotlib use that font and Matplotlib's default style. Not thread-safe."""
    from matplotlib import style
    from ultralytics.utils import plotting

    font = font_file()
    check_font = plotting.check_font
    plotting.check_font = lambda *_: font
    try:
        # "sans-serif" does not work here: Ultralytics adds "Arial Unicode MS" as its first family.
        with style.context(["default", {"font.family": [FAMILY]}]):
            yield
    finally:
        plotting.check_font = check_font
