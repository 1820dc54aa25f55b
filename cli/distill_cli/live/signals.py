"""Signal handlers for the time of a block."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def handled(handler: Callable[[int, object], None], *numbers: signal.Signals) -> Iterator[None]:
    """Inside, `handler` gets these signals. Other threads than the main one leave them alone: it alone gets signals."""
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, handler) for number in numbers if main}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
