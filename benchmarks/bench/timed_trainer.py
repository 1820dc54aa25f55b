"""The trainer for bench.recovery: launcher and rank 0 record when each phase starts."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import NoReturn

TIMES = "RECOVERY_TIMES"
"""Environment variable with the file for these records."""


def note(what: str) -> None:
    """Record that a phase starts now."""
    with open(os.environ[TIMES], "a") as file:
        file.write(json.dumps([time.time(), what]) + "\n")


def launch() -> None:
    """The trainer's entry point, timed."""
    note("imports: torch, ultralytics")
    from distill_trainer.__main__ import TRAIN
    from distill_trainer.process.launcher import launch
    from distill_trainer.process.launcher.zygote import Zygote

    class Noted(Zygote):
        def __init__(self, rank: Callable[[], NoReturn]) -> None:
            super().__init__(rank)
            note("rendezvous, fork of the ranks")

    launch.Zygote = Noted  # type: ignore[assignment,misc]
    launch.exit_process(launch.main(rank, [TRAIN]))


def rank() -> NoReturn:
    """The trainer's rank, timed."""
    if os.environ["RANK"] == "0":
        note("start of a rank")
        from distill_trainer.process.liveness.watchdog import Watchdog

        beat = Watchdog.beat

        def noted(watchdog: Watchdog, phase: str) -> None:
            if phase != watchdog.phase:
                note(phase)
            beat(watchdog, phase)

        Watchdog.beat = noted  # type: ignore[assignment]
    from distill_trainer.process.rank.worker import main
    from distill_trainer.train import train

    main(train)


if __name__ == "__main__":
    launch()
