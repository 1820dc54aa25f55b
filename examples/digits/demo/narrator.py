"""Prints the demo's progress: one line per step, with its duration."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Narrator:
    """Prints steps with the time since the start and their duration."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line, stamped with minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {text}", flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Print a step when it starts, and its duration when it is done."""
        self.say(f"{text} …")
        began = time.monotonic()
        yield
        self.say(f"  done in {time.monotonic() - began:.0f} s")
