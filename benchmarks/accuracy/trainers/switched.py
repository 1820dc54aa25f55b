"""The trainer with some of its differences from Ultralytics taken back: `python -m distill_trainer`, with switches."""

from __future__ import annotations

import os
from typing import NoReturn

from benchmarks.accuracy.trainers.switches import ENV, apply


def rank() -> NoReturn:
    """A rank with the switches of the environment."""
    from distill_trainer.process.rank.worker import main
    from distill_trainer.train import train

    apply(os.environ[ENV].split(","))
    main(train)


if __name__ == "__main__":
    from distill_trainer.__main__ import TRAIN
    from distill_trainer.process.launcher import launch

    launch.exit_process(launch.main(rank, [TRAIN]))
