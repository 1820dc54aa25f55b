"""The zygote: a process that has imported everything ranks need, from which ranks are forked so that they start fast.

Imports are most of the cost of a restart: seconds of CPU time in every rank, and again in torchrun's agent. So the
launcher imports once and, while it has one thread and no connection, forks the zygote, which waits. After the
rendezvous the zygote forks the ranks and exits. The launcher is a child subreaper, so the ranks become its children.
No CUDA context exists before a rank creates its own.
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
from functools import partial
from pathlib import Path
from typing import NoReturn

from distill_trainer.process.liveness.stop import stop_signals_blocked
from distill_trainer.process.machine.prctl import PR_SET_CHILD_SUBREAPER, prctl

_POLL_SECONDS = 0.02


@dataclass
class RankProcess:
    """A rank's process, with the part of subprocess.Popen's interface that torchrun's agent uses."""

    pid: int
    returncode: int | None = field(default=None, init=False)

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float) -> int:
        """Wait for the process to end. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() >= deadline:
                raise subprocess.TimeoutExpired(f"rank process {self.pid}", timeout)
            time.sleep(_POLL_SECONDS)
        return code


class Zygote:
    """Forks a zygote from the calling process, which must have only one thread."""

    def __init__(self, rank: Callable[[], NoReturn], prepare: Callable[[int], None] = lambda _: None) -> None:
        """Each rank calls `prepare` with its number, from 0, then `rank`, with its variables in the environment."""
        sys.stdout.flush()
        sys.stderr.flush()
        self._socket, theirs = socket.socketpair()
        launcher = os.getpid()
        # A signal must not kill a rank, or run the launcher's handlers in it, before the rank installs its own.
        with stop_signals_blocked():
            self._pid = os.fork()
            if self._pid == 0:
                self._socket.close()
                _serve(theirs, launcher, prepare, rank)
        theirs.close()

    def start(self, environs: Sequence[Mapping[str, str]]) -> list[RankProcess]:
        """Fork one rank for each set of variables. Can be called once. Raises OSError."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        try:
            with self._socket.makefile("rw") as stream:
                stream.write(json.dumps(list(environs)) + "\n")
                stream.flush()
                response = json.loads(stream.readline() or '{"error": "the zygote has ended"}')
            os.waitpid(self._pid, 0)
        finally:
            prctl(PR_SET_CHILD_SUBREAPER, 0)
            self._socket.close()
        if "error" in response:
            raise ChildProcessError(f"cannot fork the ranks: {response['error']}")
        return [RankProcess(pid) for pid in response["pids"]]


def _serve(
    connection: socket.socket, launcher: int, prepare: Callable[[int], None], rank: Callable[[], NoReturn]
) -> NoReturn:
    """Wait for one request, fork the ranks, respond and exit. Also exits when the launcher does."""
    zygote = os.getpid()
    Path("/proc/self/comm").write_text("zygote")
    pids: list[int] = []
    stream = connection.makefile("rw")
    try:
        request = stream.readline()
        for number, environ in enumerate(json.loads(request or "[]")):
            pid = os.fork()
            if pid == 0:
                stream.close()
                connection.close()
                _become_rank(zygote, launcher, environ, partial(prepare, number), rank)
            pids.append(pid)
            with suppress(OSError):  # the rank does the same, to avoid a race
                os.setpgid(pid, pid)
        response: dict[str, object] = {"pids": pids}
    except OSError as error:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        response = {"error": error.strerror}
    with suppress(OSError):
        stream.write(json.dumps(response) + "\n")
        stream.flush()
    os._exit(0)


def _become_rank(
    zygote: int,
    launcher: int,
    environ: Mapping[str, str],
    prepare: Callable[[], None],
    rank: Callable[[], NoReturn],
) -> NoReturn:
    try:
        prepare()
        with suppress(PermissionError):
            os.setpgid(0, 0)  # so that its data loader workers can be killed with it
        os.environ.update(environ)
        Path("/proc/self/comm").write_text(f"rank {environ.get('RANK', '?')}")
        while os.getppid() == zygote:
            time.sleep(0.001)
        if os.getppid() != launcher:  # the launcher was killed meanwhile
            os._exit(1)
        rank()
    except BaseException:  # noqa: BLE001  a rank must never continue as the zygote
        traceback.print_exc()
    os._exit(1)
