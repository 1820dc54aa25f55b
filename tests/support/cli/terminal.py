"""Programs in a terminal: a real pty with what they draw, keys and Ctrl-C."""

import contextlib
import fcntl
import os
import pty
import re
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROWS, COLUMNS = 40, 160
_DRAWING = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
ALTERNATE, BACK = "\x1b[?1049h", "\x1b[?1049l"
"""What a program sends to get a screen of its own, and to give back the one before."""


class Terminal:
    """A program and all that it has sent to its terminal."""

    def __init__(self, process: subprocess.Popen[bytes], screen: int) -> None:
        self.process, self._screen = process, screen
        self._sent, self._seen = bytearray(), 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def sent(self) -> str:
        """Everything so far, with the sequences that move the cursor and set colours."""
        return bytes(self._sent).decode(errors="replace")

    @property
    def text(self) -> str:
        """Everything so far, without them."""
        return self.plain(self.sent)

    @staticmethod
    def plain(sent: str) -> str:
        """What was sent, without the sequences that draw."""
        return _DRAWING.sub("", sent)

    def expect(self, text: str, seconds: float = 30) -> None:
        """Return when the terminal has got this text after what was expected before."""
        deadline = time.monotonic() + seconds
        while (found := self.text.find(text, self._seen)) < 0:
            over = time.monotonic() > deadline or not self._reader.is_alive()
            assert not over or self.text.find(text, self._seen) >= 0, f"no {text!r} in {self.text[self._seen :]!r}"
            time.sleep(0.05)
        self._seen = found + len(text)

    def type(self, keys: str) -> None:
        """Press keys; Enter is a line break, Ctrl-C is \\x03."""
        os.write(self._screen, keys.encode())

    def end(self, seconds: float = 60) -> int:
        """Wait for the program's end, and return its exit code; the terminal has got everything."""
        code = self.process.wait(timeout=seconds)
        self._reader.join(seconds)
        return code

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # the last program that had the terminal is gone
            while data := os.read(self._screen, 65536):
                self._sent += data


@contextlib.contextmanager
def terminal(command: Sequence[str], environment: Mapping[str, str], cwd: Path | None = None) -> Iterator[Terminal]:
    """Start a program as the foreground of a terminal of its own; it is over after the block."""
    screen, side = pty.openpty()
    fcntl.ioctl(side, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    # As in a shell: what a caller's own terminal measures counts for nothing.
    inherited = {name: value for name, value in environment.items() if name not in ("COLUMNS", "LINES")}
    process = subprocess.Popen(
        command, cwd=cwd, env={**inherited, "TERM": "xterm-256color"}, stdin=side, stdout=side, stderr=side,
        start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )  # fmt: skip
    os.close(side)
    shown = Terminal(process, screen)
    try:
        yield shown
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        os.close(screen)
