"""Random kills of a short distillation: whatever is killed when, it ends bitwise equal to the run that nothing befell.

    python -m benchmarks.chaos.local [--kills 50] [--seed 0] [--per-run 10] [--epochs 6] [--images 40] [--seconds 3600]

Runs of two ranks are disturbed at random moments, of starting up, training, validating, committing or winding down, and
then left to end. `lost` counts the steps that had been made and had to be made again. Prints the table and writes it,
with every disturbance, to build/bench/chaos.json. Exits 1 when a run ends differently.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.outcome import Outcome
from benchmarks.small_run import Attempt, Local, end_all, make_volumes
from distill_trainer.checkpoint.format import layout
from distill_trainer.process.liveness.heartbeat import lives

STALL_SECONDS = 40
"""recovery.stallTimeoutSeconds: a stopped rank is found after 28 s, and imports on a busy machine are no stall."""
END_SECONDS = 90.0
"""Longer than any attempt takes to end once it is disturbed."""
FROZEN_SECONDS = 2.0

Act = Callable[[Attempt, Local, random.Random], None]


def send(pids: Iterable[int | None], number: signal.Signals) -> None:
    """A signal to all that are there."""
    for pid in pids:
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, number)


def kill_a_rank(attempt: Attempt, _: Local, draw: random.Random) -> None:
    send(draw.sample(attempt.ranks(), 1) if attempt.ranks() else [], signal.SIGKILL)


def kill_the_launcher(attempt: Attempt, _: Local, __: random.Random) -> None:
    send([attempt.process.pid], signal.SIGKILL)


def kill_all_but_the_writer(attempt: Attempt, _: Local, __: random.Random) -> None:
    send([attempt.process.pid, *attempt.ranks()], signal.SIGKILL)


def kill_everything(attempt: Attempt, _: Local, __: random.Random) -> None:
    """As when a node is lost."""
    send([attempt.writer(), attempt.process.pid, *attempt.ranks()], signal.SIGKILL)


def kill_everything_and_damage_the_newest(attempt: Attempt, local: Local, draw: random.Random) -> None:
    kill_everything(attempt, local, draw)
    steps = local.committed()
    if len(steps) > 1:  # of a single one there would be nothing to fall back to
        file = layout.readable(local.folder / "checkpoints", steps[-1]) / layout.TENSORS
        content = bytearray(file.read_bytes())
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(content)


def kill_the_writer(attempt: Attempt, _: Local, __: random.Random) -> None:
    send([attempt.writer()], signal.SIGKILL)


def terminate(attempt: Attempt, _: Local, __: random.Random) -> None:
    """As a preemption with a grace period."""
    send([attempt.process.pid], signal.SIGTERM)


def stop_a_rank(attempt: Attempt, _: Local, draw: random.Random) -> None:
    send(draw.sample(attempt.ranks(), 1) if attempt.ranks() else [], signal.SIGSTOP)


def freeze_for_a_moment(attempt: Attempt, _: Local, draw: random.Random) -> None:
    ranks = draw.sample(attempt.ranks(), 1) if attempt.ranks() else []
    send(ranks, signal.SIGSTOP)
    time.sleep(FROZEN_SECONDS)
    send(ranks, signal.SIGCONT)


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
"""By name: how often, what is done, and whether the attempt has to end by it."""


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


class Run:
    """One run with its disturbances."""

    def __init__(self, number: int, local: Local, draw: random.Random, seconds: float, steps: int) -> None:
        """`seconds` and `steps`: of the undisturbed run, from its start to its end."""
        self._number, self._local, self._draw, self._seconds, self._steps = number, local, draw, seconds, steps
        self.disturbances: list[Disturbance] = []
        self._reached = self._attempts = 0

    def go(self, kills: int, until: float = math.inf) -> None:
        """Disturb it `kills` times, or `until` then (time.monotonic), then let it end.

        Raises RuntimeError when an attempt goes wrong by itself.
        """
        while True:
            self._attempts += 1
            attempt = self._local.start(f"attempt-{self._attempts}")
            if len(self.disturbances) == kills or time.monotonic() > until:
                self._finish(attempt)
                return
            if self._disturb(attempt):
                return

    def _disturb(self, attempt: Attempt) -> bool:
        """One disturbance; whether the run was done before it could be disturbed, or in spite of it."""
        kind = self._draw.choices(list(KINDS), [weight for weight, _, _ in KINDS.values()])[0]
        committed = (self._local.committed() or [0])[-1]
        ahead = self._seconds * (1 - committed / self._steps)
        # Starting up takes most of a short attempt: every other moment is one of training, so that steps are hit, too.
        in_training = self._draw.random() < 0.5
        at = self._draw.uniform(0.2, ahead / 3 if in_training else max(self._seconds / 4, ahead))
        since = math.inf if in_training else attempt.began
        status: dict[str, Any] = {}
        while time.monotonic() - since < at and attempt.process.poll() is None:
            status = attempt.status() or status
            if status.get("progress", {}).get("step", 0) > status.get("resumedFromStep", math.inf):
                since = min(since, time.monotonic())
            time.sleep(0.05)
        if attempt.process.poll() is not None:
            self._take(attempt, status)
            return self._done(attempt)
        status = attempt.status() or status
        _, act, ends = KINDS[kind]
        made = Disturbance(
            self._number,
            self._attempts,
            kind,
            round(time.monotonic() - attempt.began, 2),
            status.get("state", "starting"),
            _step(status),
        )
        pids = [attempt.process.pid, *attempt.ranks()]
        writer = attempt.writer()
        began = time.monotonic()
        act(attempt, self._local, self._draw)
        self.disturbances.append(made)
        if not ends or (not pids[1:] and "rank" in kind):
            self._finish_or_go_on(attempt, status, made)
            return attempt.process.poll() is not None and self._done(attempt)
        self._await([*pids, *([writer] if writer else [])], began)
        made.end_seconds = round(time.monotonic() - began, 2)
        self._take(attempt, status)
        message = attempt.message()
        made.ended = f"{message.reason} {attempt.process.wait()}" if message else f"killed {attempt.process.wait()}"
        return self._done(attempt)

    def _finish_or_go_on(self, attempt: Attempt, status: dict[str, Any], made: Disturbance) -> None:
        """The attempt goes on; it is disturbed again only in its next life, so it is told to stop."""
        time.sleep(self._draw.uniform(0, 2))
        send([attempt.process.pid], signal.SIGTERM)
        began = time.monotonic()
        self._await([attempt.process.pid, *attempt.ranks()], began)
        self._take(attempt, status)
        message = attempt.message()
        if message is None or message.outcome not in ("stopped", "done"):
            raise RuntimeError(f"{made} ended the attempt, which it should not: {_tail(attempt)}")

    def _finish(self, attempt: Attempt) -> None:
        status: dict[str, Any] = {}
        deadline = time.monotonic() + 3 * self._seconds + END_SECONDS
        while attempt.process.poll() is None:
            if time.monotonic() > deadline:
                raise RuntimeError(f"an undisturbed attempt does not end: {_tail(attempt)}")
            status = attempt.status() or status
            time.sleep(0.2)
        self._take(attempt, status)
        if not self._done(attempt):
            raise RuntimeError(f"an undisturbed attempt ended with {attempt.process.returncode}: {_tail(attempt)}")

    def _await(self, pids: list[int], began: float) -> None:
        while any(lives(pid) for pid in pids):
            if time.monotonic() - began > END_SECONDS:
                raise RuntimeError(f"a disturbed attempt does not end: {[pid for pid in pids if lives(pid)]}")
            time.sleep(0.05)

    def _take(self, attempt: Attempt, status: dict[str, Any]) -> None:
        """What the attempt tells of where it went on, charged to the disturbance before it."""
        message = attempt.message()
        resumed = message.resumed_from_step if message else None
        resumed = status.get("resumedFromStep") if resumed is None else resumed
        earlier = [made for made in self.disturbances if made.attempt < self._attempts]
        fallbacks = len(re.findall(r"falling back to the previous one", attempt.log.read_text()))
        if earlier:
            earlier[-1].fallbacks += fallbacks
        if resumed is not None:
            if earlier and earlier[-1].resumed_from is None:
                earlier[-1].resumed_from = resumed
                earlier[-1].lost_steps += max(0, self._reached - resumed)
            self._reached = resumed
        reached = [step for step in (_step(status), message.step if message else None) if step is not None]
        self._reached = max([self._reached, *reached])

    def _done(self, attempt: Attempt) -> bool:
        message = attempt.message()
        return message is not None and message.outcome == "done"


def _tail(attempt: Attempt) -> str:
    return "\n".join(attempt.log.read_text().splitlines()[-15:])


def _step(status: dict[str, Any]) -> int | None:
    step = status.get("progress", {}).get("step")
    return int(step) if step is not None and "resumedFromStep" in status else None


def table(disturbances: list[Disturbance]) -> str:
    """Kills by kind, with what they cost."""
    head = f"{'disturbance':34}{'times':>6}{'resumes':>9}{'lost steps':>12}{'most':>6}{'fallbacks':>11}{'ended in':>10}"
    lines = [head, "-" * len(head)]
    for kind in [*KINDS, "all"]:
        made = [one for one in disturbances if kind in (one.kind, "all")]
        if not made:
            continue
        ends = sorted(one.end_seconds for one in made if one.end_seconds is not None)
        lost = [one.lost_steps for one in made]
        resumes = sum(one.resumed_from is not None for one in made)
        ended = f"{ends[len(ends) // 2]:.1f} s" if ends else "-"
        fallbacks = sum(one.fallbacks for one in made)
        lines.append(f"{kind:34}{len(made):6}{resumes:9}{sum(lost):12}{max(lost):6}{fallbacks:11}{ended:>10}")
    return "\n".join(lines)


def main() -> int:
    """Run the chaos; 1 when a run ends differently from the reference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--seconds", type=float, default=math.inf, help="no further kill after this time")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "bench" / "chaos.json")
    args = parser.parse_args()
    batch = 8
    steps = args.epochs * -(-args.images // batch)
    training = {"epochs": args.epochs, "batch": batch, "nbs": 16, "imgsz": 64, "optimizer": "SGD", "workers": 0,
                "plots": False, "close_mosaic": 1, "warmup_epochs": 1.0}  # fmt: skip
    spec = {"training": training, "recovery": {"stallTimeoutSeconds": STALL_SECONDS}}
    began, draw = time.monotonic(), random.Random(args.seed)
    runs: list[Run] = []
    different: list[str] = []
    with tempfile.TemporaryDirectory(prefix="distill-chaos-") as folder:
        root = Path(folder)
        make_volumes(root, args.images)
        calm = Local(root, root / "calm", spec)
        reference = Run(-1, calm, draw, END_SECONDS, steps)
        started = time.monotonic()
        reference.go(0)
        seconds = time.monotonic() - started
        expected = Outcome.of(calm.folder, steps)
        print(f"reference: {steps} steps of 2 ranks in {seconds:.1f} s", flush=True)
        left, until = args.kills, began + args.seconds
        while left > 0 and time.monotonic() < until:
            local = Local(root, root / f"run-{len(runs)}", spec)
            run = Run(len(runs), local, draw, seconds, steps)
            started = time.monotonic()
            run.go(min(left, args.per_run), until)
            if not run.disturbances:  # the machine has become faster than the reference was: aim earlier
                seconds = min(seconds, time.monotonic() - started)
            runs.append(run)
            left -= len(run.disturbances)
            difference = Outcome.of(local.folder, steps).difference(expected)
            if difference is not None:
                different.append(f"run {len(runs) - 1}: {difference}")
            print(
                f"run {len(runs) - 1}: {len(run.disturbances)} disturbances,"
                f" {difference or 'bitwise equal'}; {left} left", flush=True,
            )  # fmt: skip
            shutil.rmtree(local.results, ignore_errors=True)
    all_made = [made for run in runs for made in run.disturbances]
    print(table(all_made))
    print(f"{len(runs) - len(different)} of {len(runs)} runs are bitwise equal to the reference"
          f" (state, results.csv, best.pt); {time.monotonic() - began:.0f} s, seed {args.seed}")  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    report = {
        "settings": {key: str(value) for key, value in vars(args).items()},
        "reference_seconds": seconds,
        "different": different,
        "runs": len(runs),
        "disturbances": [asdict(made) for made in all_made],
    }
    args.out.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if different else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        sys.exit(main())
    finally:
        end_all()
