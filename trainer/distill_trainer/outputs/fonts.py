"""The font of every picture: DejaVu Sans out of Matplotlib's package, whatever fonts a machine or its user has.

Ultralytics looks for Arial in its settings directory, then among the system's fonts, then on the network; ranks on
different nodes would draw different pictures.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FAMILY = "DejaVu Sans"


@contextmanager
def same_font_everywhere() -> Iterator[None]:
    """Inside, Ultralytics and Matplotlib draw with that font and with Matplotlib's own style. Not for two threads."""
    import matplotlib
    from matplotlib import style
    from ultralytics.utils import plotting

    font = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    kept = plotting.check_font
    plotting.check_font = lambda *_: font
    try:
        # A family by name: Ultralytics puts "Arial Unicode MS" before the others of "sans-serif".
        with style.context(["default", {"font.family": [FAMILY]}]):
            yield
    finally:
        plotting.check_font = kept
