"""Whole runs through the launcher: how they end, and that a resumed run is bitwise the undisturbed one."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.gpucheck.findings import Findings, Place
from benchmarks.gpucheck.misbehaving import PLAN
from benchmarks.outcome import Outcome
from benchmarks.small_run import Attempt, Local, end_all, make_volumes
from distill_api.constants import ExitCode
from distill_api.reasons import Reason

IMAGES, BATCH = 32, 8
TRAINING = {"batch": BATCH, "nbs": BATCH, "imgsz": 64, "optimizer": "SGD", "workers": 1, "plots": False}
FOREVER = 500
"""Epochs of the runs that must not end by themselves."""
STALL_SECONDS = 30
START_SECONDS = 150.0
"""Longer than a rank takes to its first steps."""


@dataclass(frozen=True)
class End:
    """How a run is disturbed, and how it must end."""

    code: int
    reason: Reason
    act: Callable[[Attempt], None] | None = None
    """Done after the first commit; None: a rank misbehaves by itself."""
    misbehaves: str = ""


ENDS = {
    "SIGKILL of a rank": End(137, Reason.PROCESS_KILLED, lambda attempt: _send(attempt.ranks()[-1:], signal.SIGKILL)),
    "SIGTERM": End(ExitCode.STOPPED, Reason.STOPPED, lambda attempt: _send(attempt.launcher(), signal.SIGTERM)),
    "out of memory": End(1, Reason.OUT_OF_MEMORY, misbehaves="oom"),
    "a rank that hangs": End(1, Reason.STALLED, misbehaves="hang"),
}


def resume(place: Place, found: Findings) -> None:
    """A run that is stopped once and resumed, beside one that is not: bitwise the same."""
    make_volumes(place.folder, images=IMAGES)
    epochs = 20 if place.cuda else 3  # it must still train when it is stopped, a moment after its first commit
    try:
        calm, disturbed = (_local(place, name, epochs) for name in ("calm", "disturbed"))
        undisturbed, first = calm.start("calm"), disturbed.start("first")
        _await_commit(disturbed, first)
        _send(first.launcher(), signal.SIGTERM)
        stopped = first.process.wait()
        message = first.message()
        found.expect(stopped == ExitCode.STOPPED, f"the stopped attempt ended with {stopped}: {_tail(first)}")
        found.figure("stopped at step", message.committed_step if message else None)
        second = disturbed.start("second")
        codes = [attempt.process.wait() for attempt in (undisturbed, second)]
        if codes != [0, 0]:
            raise RuntimeError(f"runs ended with {codes}: {_tail(undisturbed)} {_tail(second)}")
        resumed = second.message()
        found.figure("resumed from step", resumed.resumed_from_step if resumed else None)
        steps = epochs * IMAGES // BATCH
        different = Outcome.of(calm.folder, steps).difference(Outcome.of(disturbed.folder, steps))
        found.figure("different", different or "nothing")
        found.expect(different is None, f"the resumed run differs in its {different}")
        found.figure("ranks", place.ranks)
    finally:
        end_all()


def ends(place: Place, found: Findings) -> None:
    """Runs that end before their time: exit code, reason, and seconds from the disturbance on."""
    make_volumes(place.folder, images=IMAGES)
    try:
        runs = {name: _begin(place, name, end) for name, end in ENDS.items()}
        for name, (local, attempt) in runs.items():
            _check_end(place, name, local, attempt, found)
    finally:
        end_all()
    if place.cuda and place.gpus == 1:
        found.figure("ranks", "one, so NCCL had no peers")


def _begin(place: Place, name: str, end: End) -> tuple[Local, Attempt]:
    local = _local(place, name.replace(" ", "-"), FOREVER)
    if end.act is not None:
        return local, local.start("attempt")
    plan = {"rank": place.ranks - 1, "step": 5, "do": end.misbehaves}
    command = [sys.executable, "-m", "benchmarks.gpucheck.misbehaving"]
    return local, local.start("attempt", command, **{PLAN: json.dumps(plan)})


def _check_end(place: Place, name: str, local: Local, attempt: Attempt, found: Findings) -> None:
    end, began = ENDS[name], time.monotonic()
    if end.act is not None:
        _await_commit(local, attempt)
        began = time.monotonic()
        end.act(attempt)
    code = attempt.process.wait(START_SECONDS + 2 * STALL_SECONDS)
    message = attempt.message()
    reason = message.reason if message else "no termination message"
    if end.act is not None:
        found.figure(f"{name}: seconds", time.monotonic() - began)
    found.figure(name, f"{reason}, exit code {code}")
    found.expect(
        (code, reason) == (end.code, end.reason),
        f"{name}: ended with {reason} and exit code {code} instead of {end.reason} and {end.code}: {_tail(attempt)}",
    )
    blamed = message.rank if message else None
    if end.misbehaves:
        found.expect(blamed == place.ranks - 1, f"{name}: rank {blamed} is blamed instead of {place.ranks - 1}")


def _local(place: Place, name: str, epochs: int) -> Local:
    accelerators = {"perNode": place.ranks} if place.cuda else {"perNode": 0, "processesPerNode": place.ranks}
    return Local(
        place.folder,
        place.folder / "runs" / name,
        {
            "accelerators": accelerators,
            "training": TRAINING | {"epochs": epochs},
            "recovery": {"stallTimeoutSeconds": STALL_SECONDS, "gracePeriodSeconds": 30},
        },
    )


def _await_commit(local: Local, attempt: Attempt) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not local.committed():
        if attempt.process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"a run committed nothing: {_tail(attempt)}")
        time.sleep(0.05)


def _send(processes: list[Any], number: signal.Signals) -> None:
    for process in processes:
        process.signal(number)


def _tail(attempt: Attempt) -> str:
    return " | ".join(attempt.log_text().splitlines()[-4:])
