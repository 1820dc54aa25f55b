"""What a person sees: a bar where there is a terminal, one line per epoch everywhere."""

import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

CLEAR_LINE = "\r\x1b[K"
"""What a terminal needs before a line that is written over the bar."""
_REDRAW_SECONDS = 0.2


class Console:
    """Progress of the run on one stream. `enabled` is false on all ranks but 0."""

    def __init__(
        self,
        *,
        enabled: bool,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream = stream or sys.stdout
        self._enabled = enabled
        self._bar = enabled and self._stream.isatty()
        self._clock = clock
        self._drawn_at = 0.0
        self._title = ""
        self._batches = self._done = 0

    def epoch_started(self, epoch: int, epochs: int, batches: int, done: int = 0) -> None:
        """Epoch number `epoch` (from 1) of `epochs` begins; `done` of its batches were made before a resume."""
        self._title = f"epoch {epoch}/{epochs}"
        self._batches, self._done = batches, done

    def batch_done(self, losses: Mapping[str, float] | None = None) -> None:
        """One more batch of the epoch."""
        self._done += 1
        now = self._clock()
        if not self._bar or (now - self._drawn_at < _REDRAW_SECONDS and self._done < self._batches):
            return
        self._drawn_at = now
        width = 24
        filled = width * self._done // max(1, self._batches)
        bar = "█" * filled + "·" * (width - filled)
        line = f"{self._title} {bar} {self._done}/{self._batches}  {describe(losses or {})}"
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
        """The epoch is finished: mean losses by component, its duration, and the student's mAP if validated."""
        parts = [f"epoch {epoch}/{epochs}", describe(losses)]
        if map50_95 is not None:
            parts.append(f"mAP50-95 {map50_95:.4f}")
        parts.append(f"{seconds:.1f}s")
        self.line("  ".join(part for part in parts if part))

    def line(self, text: str) -> None:
        """One line, in place of the bar."""
        if self._enabled:
            self._stream.write((CLEAR_LINE if self._bar else "") + text + "\n")
            self._stream.flush()


def describe(losses: Mapping[str, float]) -> str:
    """Losses in one line: box 1.234  cls 0.567 …"""
    return "  ".join(f"{name} {value:.4g}" for name, value in losses.items())
