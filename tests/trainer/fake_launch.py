"""The container's entry point, with ranks of fake_rank.py. FAKE_IMPORTS is a module more that they import."""

import os
from typing import NoReturn

from distill_trainer import worker
from distill_trainer.launch import exit_process, main


def rank() -> NoReturn:
    """A rank with the training of fake_rank.py."""
    from fake_rank import fake_train

    worker.main(fake_train)


if __name__ == "__main__":
    exit_process(main(rank, ["fake_rank", os.environ.get("FAKE_IMPORTS", "json")]))
