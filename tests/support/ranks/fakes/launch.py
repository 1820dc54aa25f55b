"""The container's entry point, with ranks of rank.py. FAKE_IMPORTS is a module more that they import."""

import os
from typing import NoReturn

from distill_trainer.process.launcher.launch import exit_process, main
from distill_trainer.process.rank import worker


def rank() -> NoReturn:
    """A rank with the training of rank.py."""
    from tests.support.ranks.fakes.rank import fake_train

    worker.main(fake_train)


if __name__ == "__main__":
    exit_process(main(rank, ["tests.support.ranks.fakes.rank", os.environ.get("FAKE_IMPORTS", "json")]))
