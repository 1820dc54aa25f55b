"""Console output: one line per epoch, and a progress bar in a terminal."""

import logging
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

log = logging.getLogger(__name__)

CLEAR_LINE = "\r\x1b[K"
"""Terminal sequence that clears the progress bar before a line is written."""
_REDRAW_SECONDS = 0.2


class Console:
    """Prints the run's progress to one stream; `enabled` only on rank 0."""

    def __init__(
        self,
        *,
        enabled: bool,
        stream: TextIO | None = None,
        as_log: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`as_log`: write lines to the log instead, without a bar."""
        self._stream = stream or sys.stdout
        self._enabled, self._as_log = enabled, as_log
        self._bar = enabled and not as_log and self._stream.isatty()
        self._clock = clock
        self._drawn_at = 0.0
        self._title = ""
        self._batches = self._done = 0

    def epoch_started(self, epoch: int, epochs: int, batches: int, done: int = 0) -> None:
        """Epoch `epoch` (from 1) of `epochs` starts; `done` of its batches were done before a resume."""
        self._title = f"epoch {epoch}/{epochs}"
        self._batches, self._done = batches, done

    def batch_done(self, losses: Mapping[str, float] | None = None) -> None:
        """One more batch of the epoch is done."""
        self._done += 1
        now = self._clock()
        if not self._bar or (now - self._drawn_at < _REDRAW_SECONDS and self._done < self._batches):
            return
        self._drawn_at = now
        width = 24
        filled = width * self._done // max(1, self._batches)
        bar = "█" * filled + "·" * (width - filled)
        line = f"{self._title} {bar} {self._done}/{self._batches}  {format_losses(losses or {})}"
        self._stream.write(CLEAR_LINE + line[: shutil.get_terminal_size().columns - 1])
        self._stream.flush()

    def epoch_done(
        self,
        epoch: int,
        epochs: int,
        losses: Mapping[str, float],
        seconds: float,
        map50_95: float | None = None,
    ) -> None:
        """The epoch is done: mean losses by component, duration in seconds, and the student's mAP if validated."""
        parts = [f"epoch {epoch}/{epochs}", format_losses(losses)]
        if map50_95 is not None:
            parts.append(f"mAP50-95 {map50_95:.4f}")
        parts.append(f"{seconds:.1f}s")
        self.line("  ".join(part for part in parts if part))

    def line(self, text: str) -> None:
        """Print one line in place of the bar."""
        if self._enabled and self._as_log:
            log.info("%s", text)
        elif self._enabled:
            self._stream.write((CLEAR_LINE if self._bar else "") + text + "\n")
            self._stream.flush()


def format_losses(losses: Mapping[str, float]) -> str:
    """Losses in one line: box 1.234  cls 0.567 …"""
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
