"""Starts programs, records them by process ID and start time, and ends exactly those."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from testcluster.linux import tree


@dataclass(frozen=True)
class ProcessId:
    """A process ID with a start time, which tells it from a later process with the same number."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> "ProcessId | None":
        """The running process ``pid``; None if there is none or it is a zombie."""
        fields = _stat(pid)
        return cls(pid, int(fields[19])) if fields else None

    @property
    def alive(self) -> bool:
        return ProcessId.of(self.pid) == self

    @property
    def name(self) -> str:
        """Its name; empty if it has ended."""
        return tree.read(Path(f"/proc/{self.pid}/comm")).decode(errors="replace").rstrip("\n") if self.alive else ""

    @property
    def command(self) -> list[str]:
        """Its command line; empty if it has ended."""
        words = tree.read(Path(f"/proc/{self.pid}/cmdline")) if self.alive else b""
        return words.decode(errors="replace").rstrip("\0").split("\0") if words else []

    def handles(self, number: signal.Signals) -> bool:
        """Whether it has a handler for a signal."""
        found = re.search(rb"^SigCgt:\s*([0-9a-f]+)", tree.read(Path(f"/proc/{self.pid}/status")), re.MULTILINE)
        return self.alive and found is not None and bool(int(found[1], 16) >> (number - 1) & 1)

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal, unless the process has ended. Returns whether it was sent."""
        try:
            handle = os.pidfd_open(self.pid)  # refers to the same process even if its number is reused
        except ProcessLookupError:
            return False
        try:
            if self.alive:
                signal.pidfd_send_signal(handle, number)
                return True
        except ProcessLookupError:
            pass
        finally:
            os.close(handle)
        return False


def _stat(pid: int) -> list[bytes]:
    """Fields of a running process in /proc/PID/stat, from its state on; empty if there is none or it is a zombie."""
    # The second field is the command in parentheses, which can contain spaces and parentheses.
    fields = tree.read(Path(f"/proc/{pid}/stat")).rpartition(b")")[2].split()
    return fields if fields and fields[0] not in b"ZX" else []


def children(parent: int) -> list[ProcessId]:
    """The running processes whose parent is ``parent``, oldest first."""
    # /proc/PARENT/task/*/children can miss children while others end.
    pids = [int(directory.name) for directory in tree.directories(Path("/proc")) if directory.name.isdigit()]
    stats = {pid: _stat(pid) for pid in pids}
    found = [ProcessId(pid, int(fields[19])) for pid, fields in stats.items() if fields and int(fields[1]) == parent]
    return sorted(found, key=lambda process: (process.start_ticks, process.pid))


def kill_all(listed: Callable[[], set[ProcessId]]) -> int:
    """Kill the processes that ``listed`` returns with SIGKILL until it returns none; returns their number.

    Repeats, because a process can fork after it was listed. Raises RuntimeError if some cannot be killed.
    """
    killed: set[ProcessId] = set()
    for _ in range(10):
        if not (left := listed()):
            return len(killed)
        killed |= left
        end(left)
    raise RuntimeError(f"processes that cannot be killed: {sorted(process.pid for process in left)}")


def end(processes: Iterable[ProcessId], grace_seconds: float = 0) -> list[ProcessId]:
    """Send SIGTERM, wait up to ``grace_seconds``, send SIGKILL, and return the processes that still run after 5 s."""
    left = [process for process in processes if process.alive]
    if grace_seconds:
        left = _signal_and_wait(left, signal.SIGTERM, grace_seconds)
    return _signal_and_wait(left, signal.SIGKILL, 5)


def _signal_and_wait(processes: list[ProcessId], number: signal.Signals, seconds: float) -> list[ProcessId]:
    for process in processes:
        process.signal(number)
    deadline = time.monotonic() + seconds
    while (left := [process for process in processes if process.alive]) and time.monotonic() < deadline:
        time.sleep(0.02)
    return left


class ProcessTable:
    """Programs recorded in a directory: process IDs in ``NAME.pid``, output in ``NAME.log``.

    The records are files, so that ``down`` finds what an earlier, possibly crashed, ``up`` has started.
    """

    def __init__(self, directory: Path, *, die_with_parent: bool = False) -> None:
        self.directory = directory
        self._prefix = ["setpriv", "--pdeathsig", "KILL", "--"] if die_with_parent else []
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        environment: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Start ``command`` as ``name``; ``prefix`` is a command, such as nsenter, that replaces itself by it."""
        self.directory.mkdir(parents=True, exist_ok=True)
        with (self.directory / f"{name}.log").open("ab") as log:
            child = subprocess.Popen(
                [*self._prefix, *prefix, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | (environment or {}),
                start_new_session=True,  # Ctrl-C in a terminal must not reach the cluster
                pass_fds=pass_fds,
                cwd="/",
            )
        self._children[name] = child
        process = ProcessId.of(child.pid)
        if process:
            (self.directory / f"{name}.pid").write_text(json.dumps(asdict(process)))

    def get(self, name: str) -> ProcessId | None:
        """The process started as ``name``; None if it does not run."""
        if name in self._children:
            self._children[name].poll()  # reaps it if it has ended
        try:
            process = ProcessId(**json.loads((self.directory / f"{name}.pid").read_text()))
        except (FileNotFoundError, json.JSONDecodeError):
            return None
        return process if process.alive else None

    @property
    def names(self) -> list[str]:
        return [path.stem for path in tree.entries(self.directory) if path.suffix == ".pid"]

    def stop(self, *names: str, grace_seconds: float = 2) -> None:
        """Stop the named processes and delete their records. Processes that do not run are ignored."""
        end((process for name in names if (process := self.get(name))), grace_seconds)
        for name in names:
            (self.directory / f"{name}.pid").unlink(missing_ok=True)
            if child := self._children.pop(name, None):
                child.wait()

    def require_alive(self, *names: str) -> None:
        """Raise RuntimeError with the end of its log if a named process does not run."""
        for name in names:
            if self.get(name) is None:
                raise RuntimeError(f"{name} has ended; its log:\n{self.log_tail(name)}")

    def log_tail(self, name: str, lines: int = 15) -> str:
        path = self.directory / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""


def run(
    *command: str | Path, input: str | None = None, timeout: float = 120, environment: dict[str, str] | None = None
) -> str:
    """Run ``command`` and return its output. Raises RuntimeError if it fails or exceeds ``timeout`` seconds."""
    arguments = [str(part) for part in command]
    shown = " ".join([Path(arguments[0]).name, *arguments[1:]])
    environ = os.environ | (environment or {})
    try:
        done = subprocess.run(arguments, input=input, capture_output=True, text=True, timeout=timeout, env=environ)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{shown} did not end within {timeout:.0f} s") from error
    if done.returncode != 0:
        output = done.stderr.strip() or done.stdout.strip()
        raise RuntimeError(f"{shown} exited with code {done.returncode}: {output[-3000:]}")
    return done.stdout
