"""`python -m distill_trainer`: runs one attempt on this node. See process/launcher/launch.py."""

from typing import NoReturn

from distill_trainer.process.launcher.launch import exit_process, main
from distill_trainer.process.rank import worker

TRAIN = "distill_trainer.train"


def rank() -> NoReturn:
    """Run one rank. The process has already imported TRAIN."""
    from distill_trainer.train import train

    worker.main(train)


if __name__ == "__main__":
    exit_process(main(rank, [TRAIN]))
