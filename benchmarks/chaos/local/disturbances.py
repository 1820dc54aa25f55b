"""What is done to the processes of an attempt, and what is kept of it."""

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
"""Does something to an attempt and returns the processes that it was done to; none when there was nobody."""


def send(processes: Iterable[ProcessId], number: signal.Signals) -> list[ProcessId]:
    """A signal to all that are there. Returns those that got it."""
    return [process for process in processes if process.signal(number)]


def one(processes: list[ProcessId], draw: random.Random) -> list[ProcessId]:
    """One of them, where there is one."""
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
    if left := end(hit):  # nothing of it may still write while the newest is looked for
        raise RuntimeError(f"processes that cannot be killed: {left}")
    steps = local.committed()
    if len(steps) > 1:  # of a single one there would be nothing to fall back to
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
"""By name: how often, what is done, and whether the attempt has to end by it, if it hits anything."""


@dataclass
class Disturbance:
    """One kill and what came of it."""

    run: int
    attempt: int
    """Start of the launcher, from 1. One that is killed before it raises the fence leaves its number to the next."""
    kind: str
    after_seconds: float
    """Since the attempt was started."""
    state: str
    """Of rank 0, by its own word."""
    step: int | None
    """Steps finished by then; null before rank 0 knew."""
    ended: str = ""
    """Reason and exit code of the attempt's end; empty where the attempt went on."""
    end_seconds: float | None = None
    """From the kill to the end of the last process."""
    resumed_from: int | None = None
    """Committed step from which a later attempt went on; null where none had to."""
    lost_steps: int = 0
    fallbacks: int = 0
