"""The state in the golden checkpoints, and the script that makes one: run it once when a format is released.

    python -m tests.support.checkpoints.golden STEP

commits the state with the product's own code to tests/trainer/checkpoint/golden/format-<FORMAT>/step-<STEP>. A golden
checkpoint is never made again: later trainers have to read what this one has written.
"""

import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from ultralytics.utils.torch_utils import ModelEMA

from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.checkpoint.format.manifest import FORMAT
from distill_trainer.training.saving.state import TrainingProgress, TrainingState
from tests.support.checkpoints.opener import Events
from tests.support.machine.python import ROOT

GOLDEN = ROOT / "tests" / "trainer" / "checkpoint" / "golden"
UID = "golden"


def numbers(*shape: int, start: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """start, start + 1/8, … in this shape: exact in every format, and the same in every version of PyTorch."""
    return (torch.arange(torch.Size(shape).numel()) / 8 + start).to(dtype).view(shape)


def student(start: int) -> dict[str, torch.Tensor]:
    return {
        "0.weight": numbers(2, 3, 3, 3, start=start).to(memory_format=torch.channels_last),
        "0.bias": numbers(2, start=start + 1),
        "1.weight": numbers(2, start=start + 2),
        "1.bias": numbers(2, start=start + 3),
        "1.running_mean": numbers(2, start=start + 4),
        "1.running_var": numbers(2, start=start + 5),
        "1.num_batches_tracked": torch.tensor(start),
    }


def golden_state(step: int) -> dict[str, Any]:
    """What `TrainingState.collect` gives of a small training at `step`, and one value of every other kind."""
    group = {"lr": 0.01, "momentum": 0.9, "dampening": 0, "weight_decay": 0.0005, "nesterov": True, "initial_lr": 0.02}
    switches = {"maximize": False, "foreach": None, "differentiable": False, "fused": None}
    weights = [numbers(2, 3, 3, 3, start=40).to(memory_format=torch.channels_last)]
    momenta = [*weights, *(numbers(2, start=41 + index) for index in range(3))]
    return {
        "student": student(start=10),
        "projector": {"weight": numbers(2, 2, start=20)},
        "ema": student(start=30),
        "ema_updates": step,
        "optimizer": {
            "state": {index: {"momentum_buffer": tensor} for index, tensor in enumerate(momenta)},
            "param_groups": [
                {**group, **switches, "params": [0, 1]},
                {**group, **switches, "lr": 0.03, "weight_decay": 0.0, "params": [2, 3]},
            ],
        },
        "scaler": {
            "scale": 1024.0,
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": 2000,
            "_growth_tracker": step,
        },
        "progress": {
            "step": step,
            "epochs_finished": 1,
            "best_fitness": 0.25,
            "best_epoch": 1,
            "student_map": 0.5,
            "student_map50": 0.75,
            "first_distillation_loss": 1.5,
            "loss_sums": {"box_loss": 2.5, "dis_loss": 0.125},
            "loss_steps": 2,
            "skipped_in_a_row": 1,
            "stopped_early": False,
            "seconds": 12.5,
        },
        "kinds": {
            "bf16": numbers(3, start=50, dtype=torch.bfloat16),
            "half": numbers(3, start=51, dtype=torch.float16),
            "flags": torch.tensor([True, False]),
            "bytes": numbers(5, start=52, dtype=torch.uint8),
            "empty": torch.empty(0, 7),
            "plain": (1, [2, (b"bytes", "text")], None, True, {1: 0.5}),
        },
    }


def untrained() -> TrainingState:
    """A training of that shape before its first step."""
    model = nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).to(memory_format=torch.channels_last)
    first, second = list(model[0].parameters()), list(model[1].parameters())
    optimizer = torch.optim.SGD([{"params": first}, {"params": second}], lr=1.0, momentum=0.5, nesterov=True)
    task: Any = SimpleNamespace(student_model=model, projector=nn.Linear(2, 2, bias=False), balance=None)
    return TrainingState(task, ModelEMA(model), optimizer, torch.amp.GradScaler("cpu"), TrainingProgress())


def main(step: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "checkpoints"
        checkpointer = Checkpointer(directory, uid=UID, attempt=1, keep=1, is_writer=True, events=Events())
        checkpointer.snapshot(golden_state(step), step)
        checkpointer.wait()
        checkpointer.close()
        shutil.copytree(directory / f"step-{step}", GOLDEN / f"format-{FORMAT}" / f"step-{step}")


if __name__ == "__main__":
    main(int(sys.argv[1]))
