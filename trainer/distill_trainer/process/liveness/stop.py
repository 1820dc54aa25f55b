"""Stop requests by signal. The training loop checks at every step, so that all ranks stop after the same step."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

STOP_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
_PARENT_SECONDS = 1.0


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block the stop signals in this thread. Processes forked inside inherit that and unblock them when ready.

    A handler installed by the new process would be too late for a signal that arrives while it starts.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class StopFlag:
    """Set by SIGTERM, SIGINT or the death of the launcher, and never cleared."""

    def __init__(self) -> None:
        self.requests = 0
        """Number of stop requests so far."""

    @property
    def requested(self) -> bool:
        """Whether the run should commit a checkpoint and end."""
        return self.requests > 0

    def install(self) -> None:
        """Handle the signals. Call this in the main thread, before anything slow.

        A thread receives them: Python runs signal handlers in the main thread, which may be blocked in a collective.
        """
        reader, writer = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda *_: None)

        def read_signals() -> None:
            while numbers := os.read(reader, 64):
                self.requests += sum(number in STOP_SIGNALS for number in numbers)

        threading.Thread(target=read_signals, name="signals", daemon=True).start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)

    def stop_when_orphaned(self, before: Callable[[], None] = lambda: None) -> None:
        """Request a stop when the parent process ends, and call `before` first: nothing reports this rank any more, and
        the next attempt may already be starting.
        """
        parent = os.getppid()

        def watch_parent() -> None:
            while os.getppid() == parent:
                time.sleep(_PARENT_SECONDS)
            before()
            self.requests += 1

        threading.Thread(target=watch_parent, name="launcher-watch", daemon=True).start()
