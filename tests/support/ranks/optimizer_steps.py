"""A rank that makes optimizer steps with gradients that every rank draws alike: no models' passes, no DDP.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… python -m tests.support.ranks.optimizer_steps OUT

Writes OUT/rank-<rank>.json: a digest of weights and momenta after each step, and how much MuSGD has multiplied in it.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from distill_local.trainer_process import free_port
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
from distill_trainer.training.parallel import musgd
from distill_trainer.training.parallel.collectives import process_group
from distill_trainer.training.parallel.environment import from_torchrun
from tests.support.models import build
from tests.support.ranks.steps import digest
from tests.support.ranks.template import fork_ranks

STEPS = 3


def run_optimizers(out: Path, world_size: int) -> list[dict[str, Any]]:
    """What each rank has written."""
    out.mkdir(parents=True)
    ranks = fork_ranks("tests.support.ranks.optimizer_steps", [[out]] * world_size, free_port())
    assert [rank.wait(300) for rank in ranks] == [0] * world_size
    return [json.loads((out / f"rank-{rank}.json").read_text()) for rank in range(world_size)]


def main(out: Path) -> None:
    """Make the steps, and write what came of them."""
    torch.set_num_threads(1)
    environment, multiplied = from_torchrun(uses_cuda=False), 0
    iterate = musgd._iterate

    def counted(matrices: Tensor) -> Tensor:
        nonlocal multiplied
        short, long = sorted(matrices.shape[-2:])
        multiplied += matrices.numel() * short * (2 * long + short) // long
        return iterate(matrices)

    musgd._iterate = musgd.muon.zeropower_via_newtonschulz5 = counted
    student = build("yolo26n.yaml", optimizer="MuSGD", nbs=8)
    task = DistillTask(student).to(memory_format=torch.channels_last)
    plan = TrainingPlan(epochs=5, steps_per_epoch=2, batch=8, images=16, classes=3)
    optimizer, _ = build_optimizer(task, student.args, plan)
    digests, counts = [], []
    with process_group(environment, timeouts(100)):
        for step in range(STEPS):
            generator = torch.Generator().manual_seed(step)
            for parameter in task.trained_parameters():
                parameter.grad = torch.empty_like(parameter).normal_(0, 1e-3, generator=generator)
            multiplied = 0
            musgd.step(optimizer, environment)
            digests.append(digest(_tensors(task, optimizer)))
            counts.append(multiplied)
    (out / f"rank-{environment.rank}.json").write_text(json.dumps({"digests": digests, "multiplied": counts}))


def _tensors(task: DistillTask, optimizer: Optimizer) -> dict[str, Tensor]:
    """Weights and momenta."""
    found = {}
    for name, parameter in task.named_parameters():
        found |= {name: parameter.detach()} | {f"{name} {key}": v for key, v in optimizer.state[parameter].items()}
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
