"""Passes on what the ranks write to stderr, and keeps the end of it.

A rank that is aborted in native code, as c10d does after an error of a device, leaves no report: what it has written is
the only trace of the cause.
"""

from __future__ import annotations

import os
import selectors
import sys
import threading
from collections.abc import Callable

_KEPT_BYTES = 64 * 1024
_POLL_SECONDS = 0.2
_LONGEST_REST = 5.0
"""Seconds: what a rank has started may go on writing."""

_launchers: int | None = None
"""In a rank: a descriptor of the launcher's own stderr, if this one's is a pipe."""


class RankStderr:
    """A pipe for each rank. Without effect if stderr is a terminal: ranks treat a terminal in another way."""

    def __init__(self, ranks: int) -> None:
        """Call this before the ranks are forked."""
        self._pipes = [] if sys.stderr.isatty() else [os.pipe() for _ in range(ranks)]
        self._kept = [bytearray() for _ in range(ranks)]
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._pass_on, name="stderr", daemon=True)

    def redirect(self, local_rank: int) -> None:
        """In a rank's process, write stderr into its pipe."""
        global _launchers  # of the process, as stderr is
        if self._pipes:
            _launchers = os.dup(sys.stderr.fileno())
            os.dup2(self._pipes[local_rank][1], sys.stderr.fileno())
        for descriptor in sum(self._pipes, ()):
            os.close(descriptor)

    def start(self) -> None:
        """In the launcher, when the ranks can be forked without this process: begin to pass on."""
        for _, theirs in self._pipes:
            os.close(theirs)
        self._thread.start()

    def stop(self) -> Callable[[int], str]:
        """Pass on the rest after the ranks have ended. Returns the end of what a local rank has written."""
        self._stopped.set()
        self._thread.join(_LONGEST_REST)
        return lambda local_rank: self._kept[local_rank].decode(errors="replace")

    def _pass_on(self) -> None:
        with selectors.DefaultSelector() as selector:
            for (ours, _), kept in zip(self._pipes, self._kept, strict=False):
                selector.register(ours, selectors.EVENT_READ, kept)
            while (ready := selector.select(_POLL_SECONDS)) or not self._stopped.is_set():
                for key, _ in ready:
                    if not (content := os.read(key.fd, _KEPT_BYTES)):  # closed by all its processes
                        selector.unregister(key.fd)
                    key.data.extend(content)
                    del key.data[:-_KEPT_BYTES]
                    _write(content)


def give_back() -> None:
    """In a rank whose launcher is gone, write to what was the launcher's stderr: nobody reads the pipe any more."""
    if _launchers is not None:
        os.dup2(_launchers, sys.stderr.fileno())


def _write(content: bytes) -> None:
    try:
        while content:
            content = content[os.write(sys.stderr.fileno(), content) :]
    except OSError:  # nobody reads it any more
        return
