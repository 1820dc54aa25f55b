"""The heartbeat of a rank: its watchdog's thread leaves one every second, and the launcher feels for it.

A rank whose main thread hangs is named by its own watchdog. One whose process is stopped, or in which no thread gets
to run any more, can say nothing; that its heartbeat has ended is how the launcher knows, and in which phase.
"""

import contextlib
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
"""Seconds of missed that one look can add. A launcher that was itself frozen has not listened in between."""
STACKS = signal.SIGUSR1
"""Makes a rank write the stacks of all its threads to its log."""
_STACKS_SECONDS = 0.5


_LAYOUT = struct.Struct("<QQ64s")
"""Beats so far, process id, phase. Small enough that a reader sees a write as a whole or hardly ever in between."""


class Heartbeat:
    """The rank's side: a file in memory, so that neither a full disk nor a slow one holds it up."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(_LAYOUT.size))
        with open(file, "r+b") as opened:
            self._memory = mmap.mmap(opened.fileno(), _LAYOUT.size)
        self._beats, self._phase = 0, b"start"

    def phase(self, phase: str) -> None:
        """The main thread goes on to `phase`."""
        self._phase = phase.encode()
        self._write()

    def beat(self) -> None:
        """This process lives."""
        self._beats += 1
        self._write()

    def _write(self) -> None:
        _LAYOUT.pack_into(self._memory, 0, self._beats, os.getpid(), self._phase)


@dataclass(frozen=True)
class HeartbeatState:
    """What a heartbeat says: how often it has beaten, of which process, and in which phase that is."""

    beats: int
    pid: int
    phase: str


def read_heartbeat(file: Path) -> HeartbeatState | None:
    """The heartbeat in a file; None before the first beat."""
    try:
        beats, pid, phase = _LAYOUT.unpack(file.read_bytes())
    except (FileNotFoundError, struct.error):
        return None
    return HeartbeatState(beats, pid, phase.rstrip(b"\0").decode(errors="replace")) if beats else None


@dataclass(frozen=True)
class MissedHeartbeat:
    """A rank's heartbeat has been missing for `seconds`; the rank is in `phase` and is process `pid`."""

    seconds: float
    phase: str
    pid: int


@dataclass
class HeartbeatMonitor:
    """Feels the heartbeat of every rank of a node."""

    files: Mapping[int, Path]
    """By local rank."""
    clock: Callable[[], float] = time.monotonic
    _states: dict[int, HeartbeatState] = field(default_factory=dict)
    _silent: dict[int, float] = field(default_factory=dict)
    _looked: float | None = None

    def missed(self) -> dict[int, MissedHeartbeat]:
        """How long each rank that ever had a heartbeat has been silent, as far as this listener was awake."""
        now = self.clock()
        passed = min(now - self._looked, MAX_SECONDS_PER_CHECK) if self._looked is not None else 0.0
        self._looked = now
        for rank, file in self.files.items():
            state, before = read_heartbeat(file), self._states.get(rank)
            if state is None:
                continue
            beats = before is None or state.beats != before.beats
            self._silent[rank] = 0.0 if beats else self._silent[rank] + passed
            self._states[rank] = state
        return {
            rank: MissedHeartbeat(self._silent[rank], state.phase, state.pid) for rank, state in self._states.items()
        }


def lives(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):  # gone before the file was opened, or before it was read
        return False


def stuck_ranks(
    all_missed: Mapping[int, MissedHeartbeat], limits: Timeouts, others_leave: bool
) -> dict[int, MissedHeartbeat]:
    """The ranks that are stuck beyond doubt. `others_leave`: others have left, or all have been asked to."""
    limit = limits.suspect if others_leave else limits.watchdog
    return {rank: missed for rank, missed in all_missed.items() if missed.seconds >= limit}


def ask_for_stacks(pids: Iterable[int]) -> None:
    """Let processes write all their stacks to their logs, stopped ones too, and return when they have had the time."""
    asked = False
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, STACKS)
            os.kill(pid, signal.SIGCONT)
            asked = True
    if asked:
        time.sleep(_STACKS_SECONDS)
