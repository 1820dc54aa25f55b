"""What the tour says while it works: one line per step, with the seconds it took."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Narrator:
    """Prints steps with the time since the start, and how long each took."""

    def __init__(self) -> None:
        self._start = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line, stamped with minutes and seconds since the start."""
        minutes, seconds = divmod(int(time.monotonic() - self._start), 60)
        print(f"[{minutes:2d}:{seconds:02d}] {text}", flush=True)

    @contextmanager
    def step(self, text: str) -> Iterator[None]:
        """Announce a step, and say how long it took when it is done."""
        self.say(f"{text} …")
        began = time.monotonic()
        yield
        self.say(f"  done in {time.monotonic() - began:.0f} s")
