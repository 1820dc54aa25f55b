"""A request to stop. The training loop asks at every step, so that all ranks stop at the same one."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

REQUESTS_TO_STOP = frozenset({signal.SIGTERM, signal.SIGINT})
_PARENT_SECONDS = 1.0


@contextmanager
def deaf_children() -> Iterator[None]:
    """Processes that this thread forks meanwhile hold requests to stop back, from their first instruction on, until
    they listen to them; this thread holds its own back until the context ends.

    A handler that such a process sets would be too late for a signal that finds it still starting.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS_TO_STOP)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """Raised by SIGTERM, SIGINT or the death of the launcher, and never lowered."""

    def __init__(self) -> None:
        self.signals = 0
        """Reasons to stop so far."""

    @property
    def requested(self) -> bool:
        """Whether the run should commit and end."""
        return self.signals > 0

    def install(self) -> None:
        """Listen to the signals. To be called in the main thread, before anything slow.

        A thread hears them: Python's own handlers wait for the main thread, which may be waiting for another rank.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in REQUESTS_TO_STOP:
            signal.signal(number, lambda *_: None)

        def hear() -> None:
            while numbers := os.read(reader, 64):
                self.signals += sum(number in REQUESTS_TO_STOP for number in numbers)

        threading.Thread(target=hear, name="signals", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, REQUESTS_TO_STOP)

    def follow_parent(self) -> None:
        """Stop when the process that started this one is gone: nobody would hear how the rank ends, and another
        attempt may already start.
        """
        parent = os.getppid()

        def follow() -> None:
            while os.getppid() == parent:
                time.sleep(_PARENT_SECONDS)
            self.signals += 1

        threading.Thread(target=follow, name="launcher-watch", daemon=True).start()
