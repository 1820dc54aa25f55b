"""The optimizer in the precision that it trains in, where parity in double precision is blind.

MuSGD iterates in bfloat16. A version that iterated in fp32 passed twenty steps of parity in double precision, and cost
0.03 mAP over a whole training (docs/decisions/0007-musgd-as-it-is.md). Whole trainings beside Ultralytics' own are in
tests/local/test_accuracy_bench.py and `make bench-parity`.
"""

import importlib.util
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
import ultralytics
from torch import Tensor, nn
from ultralytics.engine.trainer import BaseTrainer

from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
from distill_trainer.training.parallel import musgd
from tests.support.models import ALONE, build, preprocessed, shard_batch

STEPS = 3
BATCH = 4
PLAN = TrainingPlan(epochs=10, steps_per_epoch=4, batch=BATCH, images=40_000, classes=3)


def as_installed() -> ModuleType:
    """Ultralytics' module of MuSGD from its file, whatever anybody has replaced in the imported one."""
    path = Path(ultralytics.__file__).parent / "optim" / "muon.py"
    spec = importlib.util.spec_from_file_location("muon_as_installed", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recorded_gradients(task: nn.Module) -> list[dict[str, Tensor]]:
    """Gradients of real losses, by parameter, for each step."""
    found = []
    for step in range(STEPS):
        batch = preprocessed(shard_batch(BATCH, seed=100 + step))
        batch["img"] = batch["img"].contiguous(memory_format=torch.channels_last)
        task.student_model(batch)[0].sum().backward()
        nn.utils.clip_grad_norm_(task.parameters(), 10.0)
        found.append({name: value.grad.clone() for name, value in task.named_parameters() if value.grad is not None})
        task.zero_grad()
    return found


def stepped(task: nn.Module, step: Callable[[], None], gradients: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The weights after a `step` with each of the gradients."""
    for by_name in gradients:
        for name, parameter in task.named_parameters():
            parameter.grad = by_name[name].clone() if name in by_name else None
        step()
    return {name: value.detach() for name, value in task.named_parameters()}


@pytest.mark.parametrize("name", ["MuSGD", "AdamW", "SGD"])
def test_real_steps_are_ultralytics_bit_by_bit(name: str) -> None:
    student = build("yolo26n.yaml", optimizer=name, nbs=BATCH)
    task = DistillTask(student).to(memory_format=torch.channels_last).train()
    gradients, theirs = recorded_gradients(task), deepcopy(task)
    ours, _ = build_optimizer(task, student.args, PLAN)
    rules: Any = SimpleNamespace(args=deepcopy(student.args), data={"nc": 3})
    reference = BaseTrainer.build_optimizer(
        rules, theirs, name, lr=student.args.lr0, momentum=student.args.momentum, decay=student.args.weight_decay
    )
    if name == "MuSGD":
        reference = as_installed().MuSGD(reference.param_groups, muon=reference.muon, sgd=reference.sgd)
    mine = stepped(task, lambda: musgd.step(ours, ALONE), gradients)
    expected = stepped(theirs, reference.step, gradients)
    assert mine.keys() == expected.keys()
    assert [key for key, value in expected.items() if not torch.equal(mine[key], value)] == []
