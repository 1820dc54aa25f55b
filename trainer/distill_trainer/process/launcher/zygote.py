"""The process that ranks are forked from: it has imported all that they import, so that a rank begins at once.

Imports are most of what a restart costs: seconds of processor time in every rank, and again in torchrun's agent. So the
launcher imports once and, while it still has one thread and no connection, forks this process, which waits. When the
nodes have met it forks the ranks and ends. The launcher has asked the kernel to be given what it leaves behind: from
then on the ranks are its children, as if it had started them. No CUDA context exists before a rank makes its own.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn

from distill_trainer.process.liveness.stop import deaf_children
from distill_trainer.process.machine.prctl import PR_SET_CHILD_SUBREAPER, prctl

_POLL_SECONDS = 0.02


@dataclass
class RankProcess:
    """A rank as its launcher sees it: the part of subprocess.Popen that torchrun's agent uses."""

    pid: int
    returncode: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process lives."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the end. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"rank process {self.pid}", timeout)
            time.sleep(_POLL_SECONDS)
        return code


class Zygote:
    """Forked from the calling process, which must have one thread, as soon as this is made."""

    def __init__(self, rank: Callable[[], NoReturn]) -> None:
        """`rank` is what each rank runs, once its variables are in its environment."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._socket, theirs = socket.socketpair()
        launcher = os.getpid()
        # A signal that comes before a rank has its own handlers must neither end it nor run the launcher's.
        with deaf_children():
            self._pid = os.fork()
            if self._pid == 0:
                self._socket.close()
                _serve(theirs, launcher, rank)
        theirs.close()

    def start(self, environs: Sequence[Mapping[str, str]]) -> list[RankProcess]:
        """Start one rank with each set of variables. To be called once. Raises OSError when that is not possible."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            with self._socket.makefile("rw") as stream:
                stream.write(json.dumps(list(environs)) + "\n")
                stream.flush()
                answer = json.loads(stream.readline() or '{"error": "it has ended"}')
            os.waitpid(self._pid, 0)
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0)
            self._socket.close()
        if "error" in answer:
            raise ChildProcessError(f"the ranks cannot be forked: {answer['error']}")
        return [RankProcess(pid) for pid in answer["pids"]]


def _serve(connection: socket.socket, launcher: int, rank: Callable[[], NoReturn]) -> NoReturn:
    """The zygote's life: wait for one order, fork, answer, end. The launcher's end ends it, too."""
    zygote = os.getpid()
    Path("/proc/self/comm").write_text("zygote")
    pids: list[int] = []
    stream = connection.makefile("rw")
    try:
        order = stream.readline()
        for environ in json.loads(order or "[]"):
            pid = os.fork()
            if pid == 0:
                stream.close()
                connection.close()
                _become_rank(zygote, launcher, environ, rank)
            pids.append(pid)
            with suppress(OSError):  # the rank does the same; whoever comes first
                os.setpgid(pid, pid)
        answer: dict[str, object] = {"pids": pids}
    except OSError as error:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        answer = {"error": error.strerror}
    with suppress(OSError):
        stream.write(json.dumps(answer) + "\n")
        stream.flush()
    os._exit(0)


def _become_rank(zygote: int, launcher: int, environ: Mapping[str, str], rank: Callable[[], NoReturn]) -> NoReturn:
    try:
        with suppress(PermissionError):
            os.setpgid(0, 0)  # so that its loader workers can be ended with it
        os.environ.update(environ)
        Path("/proc/self/comm").write_text(f"rank {environ.get('RANK', '?')}")
        while os.getppid() == zygote:
            time.sleep(0.001)
        if os.getppid() != launcher:  # killed meanwhile
            os._exit(1)
        rank()
    except BaseException:  # noqa: BLE001  whatever it is, a rank must not go on as a zygote
        traceback.print_exc()
    os._exit(1)
