"""How often a step makes the host wait for the device. On CPUs the operators that would do so can be counted."""

import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import distill_trainer
from distill_trainer.process.telemetry.phases import Phases
from tests.support.looped import Run

READING = {"_local_scalar_dense", "nonzero", "is_nonzero", "masked_select", "equal", "_unique2"}
"""Operators whose result the host needs: its value, or its size."""
OURS = str(Path(distill_trainer.__file__).parent)


class Reads(TorchDispatchMode):
    """Counts them by whose code asks for them: the innermost frame that is the trainer's or Ultralytics'."""

    def __init__(self) -> None:
        super().__init__()
        self.where: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexed = func.overloadpacket.__name__ in {"index", "index_put", "index_put_"} and any(
            isinstance(index, torch.Tensor) and index.dtype is torch.bool for index in args[1]
        )
        if func.overloadpacket.__name__ in READING or indexed:
            for frame in reversed(traceback.extract_stack()):
                if frame.filename.startswith(OURS) or "/ultralytics/" in frame.filename:
                    self.where["trainer" if frame.filename.startswith(OURS) else "ultralytics"] += 1
                    break
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("options", [{}, {"share": 0.5, "scaled": True}, {"optimizer": "MuSGD"}], ids=str)
def test_a_step_reads_nothing_but_the_result_of_the_step_before(options: dict[str, Any]) -> None:
    """Ultralytics' losses read on their own account, 14 times a step of YOLO26; docs/gpu.md says so."""
    run = Run(True, nbs=2, **options)
    run.step.begin_epoch(0)
    run.step.run(0, next(run.batches(0, 1)), False, Phases()).read()  # creates the optimizer's state
    for number, batches in enumerate(run.batches(1, 4), 1):
        with Reads() as reads:
            run.step.run(number, batches, False, Phases())
        assert reads.where == {"ultralytics": 14}


def test_a_result_that_is_read_at_once_is_counted() -> None:
    """Guards the count above against being of operators that nobody calls."""
    run = Run(False, nbs=2)
    run.step.begin_epoch(0)
    with Reads() as reads:
        run.step.run(0, next(run.batches(0, 1)), False, Phases())
    assert reads.where["trainer"] == 1
