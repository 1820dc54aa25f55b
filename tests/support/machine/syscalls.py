"""What a piece of work asks of the kernel, call by call, and what comes of it when one of them is its last or fails.

The work runs in a fork of this process, which strace watches from the moment that it begins.
"""

import gc
import os
import re
import shutil
import signal
import subprocess
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from distill_trainer.process.liveness.heartbeat import is_alive
from tests.support.machine.leaving_out import leave_out

WATCHED = "%file,%desc"
NOISE = frozenset({"mmap", "brk", "ioctl", "lseek", "fcntl", "poll", "newfstatat", "readlink", "access", "exit_group"})
"""Calls that change nothing on a disk: nothing is different whether a kill comes before or after them."""

_LINE = re.compile(r"^(\w+)\((.*)\) += (-?\d+)")


@dataclass(frozen=True)
class Call:
    """One call: its name, its arguments as strace writes them (strings in hex), what it returned, and that it is the
    nth of its name.
    """

    name: str
    arguments: str
    returned: int
    nth: int


def needs_strace() -> None:
    """Skip where strace is not there or may not trace; under CI=true fail."""
    reason = None
    if shutil.which("strace") is None:
        reason = "strace is not installed; apt-get install strace"
    elif subprocess.run(["strace", "-o", os.devnull, "true"], capture_output=True).returncode:
        reason = "strace may not trace here; run with CAP_SYS_PTRACE"
    if reason:
        leave_out(reason)


@contextmanager
def slow_fsync(pid: int, delay: str) -> Iterator[None]:
    """Let every fsync of a process take `delay` (as strace writes it, such as 100ms) for as long as this lasts."""
    needs_strace()
    options = ["-e", "trace=fsync", "-e", f"inject=fsync:delay_enter={delay}", "-o", os.devnull]
    strace = subprocess.Popen(["strace", "-f", "-p", str(pid), *options], stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    assert "attached" in strace.stderr.readline()
    try:
        yield
    finally:
        strace.terminate()
        strace.communicate(timeout=20)


@contextmanager
def watched(work: Callable[[], int], log: Path, inject: str | None = None) -> Iterator[int]:
    """A process that does `work` and exits with what it returns, 9 for an error; yields its process id."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    ready, forked = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            gc.disable()  # garbage of earlier tests may hold files: closing them is not the work's
            os.write(forked, b"1")  # and what libraries do in a fork is over
            signal.sigwait({signal.SIGUSR1})  # a call that strace is not asked to watch
            os._exit(work())
        except BaseException:  # noqa: BLE001  the fork must never go on as the test itself
            traceback.print_exc()
        finally:
            os._exit(9)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    os.close(forked)
    os.read(ready, 1)
    os.close(ready)
    options = ["-e", f"inject={inject}"] if inject else []
    log.unlink(missing_ok=True)
    strace = subprocess.Popen(
        ["strace", "-p", str(child), "-o", str(log), "-xx", "-s", "1000000", "-e", f"trace={WATCHED}", *options],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert strace.stderr is not None
    told = strace.stderr.readline()
    try:
        assert "attached" in told, told
        os.kill(child, signal.SIGUSR1)
        yield child
    finally:
        strace.wait(60)
        strace.stderr.close()


def outcome(work: Callable[[], int], log: Path, inject: str | None = None) -> int:
    """Do `work` in a process under strace; its exit code, negative for a signal."""
    with watched(work, log, inject) as child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def calls(work: Callable[[], int], log: Path) -> list[Call]:
    """All calls of the work, which must succeed."""
    assert outcome(work, log) == 0
    found: list[Call] = []
    seen: Counter[str] = Counter()
    for line in log.read_text().splitlines():
        match = _LINE.match(line)
        if match:
            seen[match[1]] += 1
            found.append(Call(match[1], match[2], int(match[3]), seen[match[1]]))
    return found


def wait_until_stopped(pid: int, log: Path) -> bool:
    """Return whether the process, whose calls strace writes to `log`, has stopped (and is not ended)."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        # A process that is traced looks stopped in every call; only strace knows why.
        if log.exists() and "stopped by SIGSTOP" in log.read_text():
            return True
        if not is_alive(pid):
            return False
        time.sleep(0.002)
    raise AssertionError(f"process {pid} neither stopped nor ended")


def go_on(pid: int) -> int:
    """Let a stopped process go on; its exit code."""
    os.kill(pid, signal.SIGCONT)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
