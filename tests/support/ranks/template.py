"""A process that imports once what ranks need, and forks them: importing takes longer than most of what they do.

python -m tests.support.ranks.template

The trainer's launcher starts its ranks in the same way. A line of its input asks for a gang; a line of its output names
the processes of one, or says how a process has ended. It ends with its input, and the ranks with it.
"""

import atexit
import json
import os
import runpy
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

from distill_trainer.process.launcher.preload import COMPILER, preload
from tests.support.machine.python import command, environment
from tests.support.ranks.start import variables

MODULES = ("distill_trainer.train", "tests.support.models", "tests.support.checkpoints.opener", *COMPILER)
INPUT, OUTPUT = 0, 1


class Rank:
    """A rank's process, with what tests need of subprocess.Popen."""

    def __init__(self, template: "Template", pid: int) -> None:
        self._template, self.pid = template, pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while the process runs."""
        self._template.listen(0)
        return self._template.ended.get(self.pid)

    def wait(self, timeout: float) -> int:
        """Wait for the process to end. Raises subprocess.TimeoutExpired."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if (left := deadline - time.monotonic()) <= 0:
                raise subprocess.TimeoutExpired(f"rank process {self.pid}", timeout)
            self._template.listen(left)
        return code

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


class Template:
    """The test's end of such a process."""

    def __init__(self) -> None:
        self.ended: dict[int, int] = {}
        self._started: list[list[int]] = []
        own = environment(OMP_NUM_THREADS="1")
        self._process = subprocess.Popen(command(__name__), env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._ask, self._answers = self._process.stdin, Lines(self._process.stdout.fileno())
        atexit.register(self.close)

    def fork(self, module: str, arguments: list[list[str]], port: int) -> list[Rank]:
        """Start a gang, with this process's variables and in its folder."""
        environs = [environment(**variables(rank, len(arguments), port)) for rank in range(len(arguments))]
        ranks = [{"arguments": given, "environ": environ} for given, environ in zip(arguments, environs, strict=True)]
        self._ask.write(json.dumps({"module": module, "folder": os.getcwd(), "ranks": ranks}).encode() + b"\n")
        self._ask.flush()
        while not self._started:
            self.listen(120)
        return [Rank(self, pid) for pid in self._started.pop()]

    def close(self) -> None:
        """End it, and every rank that still runs."""
        self._ask.close()
        self._process.wait(60)

    def listen(self, seconds: float) -> None:
        """Wait so long for news, and note it."""
        for news in self._answers.within(seconds):
            if "started" in news:
                self._started.append(news["started"])
            else:
                self.ended[news["pid"]] = news["code"]


@cache
def template() -> Template:
    """That of this process, which is started when a test first needs it."""
    return Template()


def fork_ranks(module: str, arguments: Iterable[Iterable[object]], port: int) -> list[Rank]:
    """Start one rank of `module` with each of the lists of arguments; they meet at `port` of this machine."""
    return template().fork(module, [list(map(str, of_rank)) for of_rank in arguments], port)


class Lines:
    """JSON documents, each a line, from a pipe."""

    def __init__(self, file: int) -> None:
        self._file, self._rest = file, b""

    def within(self, seconds: float, *others: int) -> list[dict[str, Any]]:
        """What comes within so many seconds, or until one of the other pipes can be read. Raises EOFError."""
        if self._file not in select.select([self._file, *others], [], [], seconds)[0]:
            return []
        if not (read := os.read(self._file, 1 << 16)):
            raise EOFError("the other process has ended")
        *lines, self._rest = (self._rest + read).split(b"\n")
        return [json.loads(line) for line in lines]


def serve() -> dict[str, Any]:
    """Fork the gangs that are asked for; returns only in a rank, with its module and arguments."""
    woken, wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(wakes)
    requests, alive = Lines(INPUT), set[int]()
    while True:
        for gang in requests.within(3600, woken):
            pids = []
            for rank in gang.pop("ranks"):
                if (pid := os.fork()) == 0:
                    return gang | rank
                pids.append(pid)
            alive |= set(pids)
            tell({"started": pids})
        with suppress(BlockingIOError):
            os.read(woken, 1 << 16)
        for pid in list(alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                alive.remove(pid)
                tell({"pid": pid, "code": os.waitstatus_to_exitcode(status)})


def tell(news: dict[str, Any]) -> None:
    os.write(OUTPUT, json.dumps(news).encode() + b"\n")


def main() -> None:
    """Serve until the input ends; in a rank, become it."""
    preload(MODULES)
    os.setpgid(0, 0)
    try:
        rank = serve()
    except EOFError:
        os.killpg(0, signal.SIGKILL)
        return
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(os.open(os.devnull, os.O_RDONLY), INPUT)
    os.dup2(2, OUTPUT)
    os.environ.clear()
    os.environ |= rank["environ"]
    os.chdir(rank["folder"])
    sys.argv[1:] = rank["arguments"]
    runpy.run_module(rank["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
