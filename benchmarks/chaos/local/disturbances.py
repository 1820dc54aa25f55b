"""The kinds of disturbances of an attempt's processes, and the record of a disturbance."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.small_run import Attempt, Local
from distill_trainer.checkpoint.format import layout
from testcluster.linux.processes import ProcessId, end

FROZEN_SECONDS = 2.0

Act = Callable[[Attempt, Local, random.Random], list[ProcessId]]
"""Disturbs an attempt and returns the affected processes."""


def send(processes: Iterable[ProcessId], number: signal.Signals) -> list[ProcessId]:
    """Send a signal to all processes that exist, and return these."""
    return [process for process in processes if process.signal(number)]


def one(processes: list[ProcessId], draw: random.Random) -> list[ProcessId]:
    """A random one of the processes, if there are any."""
    return draw.sample(processes, min(1, len(processes)))


def kill_a_rank(attempt: Attempt, _: Local, draw: random.Random) -> list[ProcessId]:
    return send(one(attempt.ranks(), draw), signal.SIGKILL)


def kill_the_launcher(attempt: Attempt, _: Local, __: random.Random) -> list[ProcessId]:
    return send(attempt.launcher(), signal.SIGKILL)


def kill_all_but_the_writer(attempt: Attempt, _: Local, __: random.Random) -> list[ProcessId]:
    ranks = attempt.ranks()
    return send([*attempt.launcher(), *ranks], signal.SIGKILL)


def kill_everything(attempt: Attempt, _: Local, __: random.Random) -> list[ProcessId]:
    """As when a node is lost."""
    writers, ranks = attempt.writers(), attempt.ranks()
    return send([*writers, *attempt.launcher(), *ranks], signal.SIGKILL)


def kill_everything_and_damage_the_newest(attempt: Attempt, local: Local, draw: random.Random) -> list[ProcessId]:
    hit = kill_everything(attempt, local, draw)
    if left := end(hit):  # no process may write while the newest checkpoint is searched
        raise RuntimeError(f"processes that cannot be killed: {left}")
    steps = local.committed()
    if len(steps) > 1:  # there must be a checkpoint to fall back to
        file = layout.readable(local.folder / "checkpoints", steps[-1]) / layout.TENSORS
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)
    return hit


def kill_the_writer(attempt: Attempt, _: Local, __: random.Random) -> list[ProcessId]:
    return send(attempt.writers(), signal.SIGKILL)


def terminate(attempt: Attempt, _: Local, __: random.Random) -> list[ProcessId]:
    """As a preemption with a grace period."""
    return send(attempt.launcher(), signal.SIGTERM)


def stop_a_rank(attempt: Attempt, _: Local, draw: random.Random) -> list[ProcessId]:
    return send(one(attempt.ranks(), draw), signal.SIGSTOP)


def freeze_for_a_moment(attempt: Attempt, _: Local, draw: random.Random) -> list[ProcessId]:
    stopped = send(one(attempt.ranks(), draw), signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    return send(stopped, signal.SIGCONT)


KINDS: dict[str, tuple[int, Act, bool]] = {
    "SIGKILL rank": (4, kill_a_rank, True),
    "SIGKILL launcher": (2, kill_the_launcher, True),
    "SIGKILL all but the writer": (2, kill_all_but_the_writer, True),
    "SIGKILL everything": (3, kill_everything, True),
    "SIGKILL everything, flip a bit": (1, kill_everything_and_damage_the_newest, True),
    "SIGKILL checkpoint writer": (2, kill_the_writer, False),
    "SIGTERM launcher": (4, terminate, True),
    "SIGSTOP rank": (1, stop_a_rank, True),
    "SIGSTOP rank, SIGCONT after 2 s": (1, freeze_for_a_moment, False),
}
"""By name: weight, function, and whether it must end the attempt if it affects a process."""


@dataclass
class Disturbance:
    """One disturbance and its result."""

    run: int
    attempt: int
    """Number of the launcher's start, from 1. Differs from the attempt's if one was killed before its fence."""
    kind: str
    after_seconds: float
    """Seconds since the attempt started."""
    state: str
    """Rank 0's state in its status."""
    step: int | None
    """Steps finished by then; null if unknown."""
    ended: str = ""
    """Reason and exit code of the attempt's end; empty if it did not end."""
    end_seconds: float | None = None
    """Seconds from the disturbance to the end of the last process."""
    resumed_from: int | None = None
    """Committed step from which a later attempt resumed; null if none did."""
    lost_steps: int = 0
    fallbacks: int = 0
