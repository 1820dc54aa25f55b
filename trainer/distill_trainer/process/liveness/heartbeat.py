"""A rank's heartbeat: its watchdog thread writes one every second to a file that the launcher monitors.

The rank's own watchdog reports a stuck main thread. It cannot run if the process is stopped or no thread is scheduled;
the launcher detects that case by the missing heartbeat, which also has the rank's phase.
"""

import contextlib
import ctypes
import mmap
import os
import signal
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from distill_trainer.process.liveness.timeouts import Timeouts

MAX_SECONDS_PER_CHECK = 2.0
"""Most seconds that one check can add, in case the launcher itself was frozen since the last one."""
STACK_DUMP_SIGNAL = signal.SIGUSR1
"""Makes a rank write the stacks of all its threads to its log."""
_STACK_DUMP_SECONDS = 5.0
"""Longest wait for a process to write its stacks; a busy machine takes seconds to schedule it."""
_LIBC = ctypes.CDLL(None, use_errno=True)

_LAYOUT = struct.Struct("<QQ64s")
"""Beats so far, process ID, phase. So small that readers practically never see a partial write."""


class Heartbeat:
    """Writes a rank's heartbeat to a memory-mapped file, so that a full or slow disk does not block it."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(_LAYOUT.size))
        with open(file, "r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _LAYOUT.size)
        self._beats, self._phase = 0, b"start"

    def phase(self, phase: str) -> None:
        """Set the phase of the main thread."""
        self._phase = phase.encode()
        self._write()

    def beat(self) -> None:
        """Write one beat."""
        self._beats += 1
        self._write()

    def _write(self) -> None:
        _LAYOUT.pack_into(self._memory, 0, self._beats, os.getpid(), self._phase)


@dataclass(frozen=True)
class HeartbeatState:
    """Contents of a heartbeat file."""

    beats: int
    pid: int
    phase: str


def read_heartbeat(file: Path) -> HeartbeatState | None:
    """Read a heartbeat file; None before the first beat."""
    try:
        beats, pid, phase = _LAYOUT.unpack(file.read_bytes())
    except (FileNotFoundError, struct.error):
        return None
    return HeartbeatState(beats, pid, phase.rstrip(b"\0").decode(errors="replace")) if beats else None


@dataclass(frozen=True)
class MissedHeartbeat:
    """A rank (process `pid`, in `phase`) has sent no heartbeat for `seconds`."""

    seconds: float
    phase: str
    pid: int


@dataclass
class HeartbeatMonitor:
    """Monitors the heartbeats of all ranks of a node."""

    files: Mapping[int, Path]
    """By local rank."""
    clock: Callable[[], float] = time.monotonic
    _states: dict[int, HeartbeatState] = field(default_factory=dict)
    _missing_seconds: dict[int, float] = field(default_factory=dict)
    _last_check: float | None = None

    def missed(self) -> dict[int, MissedHeartbeat]:
        """For each rank that has sent a heartbeat: the seconds since the last one, without time this process slept."""
        now = self.clock()
        passed = min(now - self._last_check, MAX_SECONDS_PER_CHECK) if self._last_check is not None else 0.0
        self._last_check = now
        for rank, file in self.files.items():
            state, before = read_heartbeat(file), self._states.get(rank)
            if state is None:
                continue
            beats = before is None or state.beats != before.beats
            self._missing_seconds[rank] = 0.0 if beats else self._missing_seconds[rank] + passed
            self._states[rank] = state
        return {
            rank: MissedHeartbeat(self._missing_seconds[rank], state.phase, state.pid)
            for rank, state in self._states.items()
        }


def is_alive(pid: int) -> bool:
    """Whether the process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # ended before the file was opened, or before it was read
        return False


def stuck_ranks(
    all_missed: Mapping[int, MissedHeartbeat], limits: Timeouts, others_ended: bool
) -> dict[int, MissedHeartbeat]:
    """The ranks whose heartbeat has been missing too long.

    `others_ended`: other ranks have ended or a stop was requested, so the shorter timeout applies.
    """
    limit = limits.suspect if others_ended else limits.watchdog
    return {rank: missed for rank, missed in all_missed.items() if missed.seconds >= limit}


def request_stack_dumps(pids: Iterable[int]) -> None:
    """Make processes, even stopped ones, write the stacks of all threads to their logs; wait until that is done."""
    waiting: dict[int, set[Path]] = {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            waiting[pid] = _threads_with(pid, "SigBlk")
            _signal_main_thread(pid)
            os.kill(pid, signal.SIGCONT)
    deadline = time.monotonic() + _STACK_DUMP_SECONDS
    while any(_is_dumping(pid, before) for pid, before in waiting.items()) and time.monotonic() < deadline:
        time.sleep(0.01)


def _signal_main_thread(pid: int) -> None:
    """Send STACK_DUMP_SIGNAL to the main thread: once continued, it writes the stacks before it leaves its place.

    A signal to the process goes to any thread, and the main thread would move on before the stacks are written.
    """
    if _LIBC.tgkill(pid, pid, int(STACK_DUMP_SIGNAL)):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _is_dumping(pid: int, blocking: set[Path]) -> bool:
    """Whether the signal waits for the process, or a thread handles it: the kernel blocks it there meanwhile.

    `blocking`: threads that block it always.
    """
    pending = _threads_with(pid, "SigPnd") | _threads_with(pid, "ShdPnd")
    return bool(pending or _threads_with(pid, "SigBlk") - blocking)


def _threads_with(pid: int, signal_set: str) -> set[Path]:
    """Threads of the process that have the signal in this set (see proc_pid_status(5))."""
    found, bit = set(), 1 << (STACK_DUMP_SIGNAL - 1)
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        with contextlib.suppress(OSError):  # the thread has ended
            lines = status.read_text().splitlines()
            if any(line.startswith(f"{signal_set}:") and int(line.split()[1], 16) & bit for line in lines):
                found.add(status)
    return found
