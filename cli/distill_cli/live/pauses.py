"""Ctrl-C in a command that looks again and again: it ends in a pause, not in the middle of a request."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from distill_cli.live.signals import handled

_PATIENCE: Final = 2.0
"""Seconds that a Ctrl-C may wait for the next pause. A server that does not answer must not keep anybody longer."""
_ALARM: Final = (signal.SIGALRM,) if hasattr(signal, "SIGALRM") else ()
"""Not on Windows, where a second Ctrl-C helps."""


@contextmanager
def pauses(seconds: float) -> Iterator[Callable[[], None]]:
    """Gives a function that sleeps for `seconds`, and in which Ctrl-C raises KeyboardInterrupt.

    Python raises it wherever the program is: in a finalizer, which drops it, or while urllib3 holds the lock of its
    connections, which it then waits for at the end of the program, for ever. Elsewhere Ctrl-C thus waits for the next
    pause; a second one, and _PATIENCE, do not.
    """
    paused = asked = False

    def interrupt(number: int, _frame: object) -> None:
        nonlocal asked
        if paused or asked or number != signal.SIGINT:
            raise KeyboardInterrupt
        asked = True
        if _ALARM:
            signal.setitimer(signal.ITIMER_REAL, _PATIENCE)

    def pause() -> None:
        nonlocal paused
        paused = True
        try:
            if asked:
                raise KeyboardInterrupt
            time.sleep(seconds)
        finally:
            paused = False

    with handled(interrupt, signal.SIGINT, *_ALARM):
        try:
            yield pause
        finally:
            if asked and _ALARM:
                signal.setitimer(signal.ITIMER_REAL, 0)
