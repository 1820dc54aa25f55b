"""The container's entry point with the trainer's own ranks, which train over what behaves as NCCL does.

python -m tests.support.ranks.fakes.patient_trainer
"""

from typing import NoReturn

from distill_trainer.__main__ import TRAIN
from distill_trainer.process.launcher.launch import exit_process, main


def rank() -> NoReturn:
    """The trainer's rank, over the backend `patient`."""
    from distill_trainer.process.rank.worker import main as work
    from distill_trainer.train import train
    from distill_trainer.training.parallel.environment import Environment
    from tests.support.ranks.patient import PatientEnvironment, use

    use()
    Environment.backend = PatientEnvironment.backend  # type: ignore[method-assign]
    work(train)


if __name__ == "__main__":
    exit_process(main(rank, [TRAIN]))
