"""`distill open` as a user has it: a process with an address, which Ctrl-C ends."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from tests.support.machine.python import environment

END_SECONDS = 30
_FROM_A_SHELL = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # whatever has started the tests
runpy.run_module("distill_cli.main", run_name="__main__")
"""


class Opened:
    """The running command: its address, and after `interrupt` its exit code."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self._process, self.address = process, address

    def get(self, relative: str = "") -> bytes:
        """What is served there; `relative` starts at the address' root."""
        scheme, _, host, *_ = self.address.split("/")
        where = f"{scheme}//{host}/{relative}" if relative else self.address
        with build_opener(ProxyHandler({})).open(where, timeout=END_SECONDS) as answer:
            return bytes(answer.read())

    def interrupt(self) -> int:
        """Press Ctrl-C, and wait for the end."""
        self._process.send_signal(signal.SIGINT)
        return self._process.wait(END_SECONDS)


@contextmanager
def opened(kubeconfig: Path, namespace: str, job: str, *options: str) -> Iterator[Opened]:
    """`distill open JOB --no-browser`, once it has printed its address; it is over after the block."""
    arguments = ["open", job, "--no-browser", "-n", namespace, "--kubeconfig", str(kubeconfig), *options]
    process = subprocess.Popen(
        [sys.executable, "-c", _FROM_A_SHELL, *arguments],
        stdout=subprocess.PIPE,
        text=True,
        env=environment(PYTHONUNBUFFERED="1"),
    )
    try:
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http://127.0.0.1:"), f"distill open ended with {process.wait(END_SECONDS)}"
        yield Opened(process, address)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(END_SECONDS)
