"""The trainer, one of whose ranks misbehaves at a step: {"rank": 1, "step": 3, "do": "oom"} in GPU_CHECK_MISBEHAVE.

python -m benchmarks.gpucheck.misbehaving
"""

from __future__ import annotations

import json
import os
import time
from typing import Any, NoReturn

from distill_trainer.__main__ import TRAIN
from distill_trainer.process.launcher.launch import exit_process, main

PLAN = "GPU_CHECK_MISBEHAVE"


def rank() -> NoReturn:
    """The trainer's rank, with a step that does as planned."""
    from distill_trainer.process.rank.worker import main as work
    from distill_trainer.train import train
    from distill_trainer.training.step import Step

    plan, run = json.loads(os.environ[PLAN]), Step.run

    def misbehave(step: Step, number: int, *arguments: Any) -> Any:
        if number == plan["step"] and int(os.environ["RANK"]) == plan["rank"]:
            if plan["do"] == "hang":
                time.sleep(3600)
            _take_all_memory()
        return run(step, number, *arguments)

    Step.run = misbehave  # type: ignore[assignment]
    work(train)


def _take_all_memory() -> None:
    import torch

    if torch.cuda.is_available():
        torch.empty(1 << 50, dtype=torch.uint8, device="cuda")
    bytearray(1 << 60)


if __name__ == "__main__":
    exit_process(main(rank, [TRAIN]))
