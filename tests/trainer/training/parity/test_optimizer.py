"""Optimizer groups and the schedule of whole runs against the installed Ultralytics' own."""

from copy import deepcopy
from types import SimpleNamespace
from typing import get_args

import pytest
from torch import optim
from ultralytics.engine.trainer import BaseTrainer

from distill_api.spec.training import Training
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DistillTask, Term
from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
from tests.support.models import build as build_model
from tests.support.models import job_spec


def plan(**fields: int) -> TrainingPlan:
    return TrainingPlan(**({"epochs": 5, "steps_per_epoch": 7, "batch": 16, "images": 112, "classes": 3} | fields))


@pytest.mark.parametrize("name", get_args(Training.model_fields["optimizer"].annotation))
def test_optimizer_groups_are_ultralytics(name: str) -> None:
    student = build_model("yolo26n.yaml", optimizer=name)
    task = DistillTask(student, Projector((64, 128, 256), (128, 256, 512)), [Term(LOSSES["sl2"])])
    optimizer, _ = build_optimizer(task, student.args, plan())
    expected = BaseTrainer.build_optimizer(
        SimpleNamespace(args=deepcopy(student.args), data={"nc": 3}),
        task,
        name,
        lr=0.01,
        momentum=0.937,
        decay=5e-4,
        iterations=35,
    )
    assert type(optimizer) is type(expected)
    keys = ("lr", "weight_decay", "momentum", "betas", "param_group", "use_muon")
    for ours, theirs in zip(optimizer.param_groups, [g for g in expected.param_groups if g["params"]], strict=True):
        assert {key: ours.get(key) for key in keys} == {key: theirs.get(key) for key in keys}
        trained = [p for p in theirs["params"] if p.requires_grad]
        assert [id(p) for p in ours["params"]] == [id(p) for p in trained]


@pytest.mark.parametrize("cosine", [False, True])
def test_learning_rates_follow_ultralytics_loop(cosine: bool) -> None:
    """The reference walks through the epochs as Ultralytics' loop does, with its own scheduler object."""
    import numpy as np

    arguments = ultralytics_arguments(
        job_spec(training={"epochs": 5, "batch": 16, "warmup_epochs": 2.5, "cos_lr": cosine, "optimizer": "SGD"}),
        "detect",
        64,
    )
    task = DistillTask(build_model("yolo26n.yaml"))
    optimizer, schedule = build_optimizer(task, arguments, plan())
    stub = SimpleNamespace(args=arguments, epochs=5, optimizer=optim.SGD(task.parameters(), lr=0.01))
    BaseTrainer._setup_scheduler(stub)
    warmup = BaseTrainer._get_warmup_iterations(stub, 7)
    assert schedule.warmup_steps == warmup == round(2.5 * 7)
    for step in range(35):
        factor = stub.lf(step // 7)
        expected = {
            kind: 0.01 * factor
            if step > warmup
            else float(np.interp(step, [0, warmup], [0.1 if kind == "bias" else 0.0, 0.01 * factor]))
            for kind in ("bias", "bn", "weight")
        }
        schedule.apply(optimizer, step)
        for group in optimizer.param_groups:
            assert group["lr"] == pytest.approx(expected[group["param_group"]], rel=1e-12)
            assert group["momentum"] == pytest.approx(float(np.interp(step, [0, warmup], [0.8, 0.937])))
        assert schedule.accumulate(step) == max(1, round(float(np.interp(step, [0, warmup], [1, 4]))))
