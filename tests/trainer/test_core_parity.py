"""The losses, gradients and optimizer of this trainer against those of the installed Ultralytics."""

from copy import deepcopy
from types import SimpleNamespace

import pytest
import torch
from torch import optim
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.nn.distill_model import DistillationModel

from distill_trainer.arguments import ultralytics_arguments
from distill_trainer.distillation.losses import LOSSES
from distill_trainer.distillation.projector import Projector
from distill_trainer.models import neck_channels
from distill_trainer.optim import Plan, build
from distill_trainer.task import DISTILLATION_LOSS, OBJECTIVE, DistillTask
from distill_trainer.teacher import Teacher
from trainer_support import CPU, SUFFIX, job_spec, preprocessed, shard_batch, teach
from trainer_support import build as build_model

PAIRS = [
    ("yolo26{}n{}.yaml", "yolo26{}s{}.yaml", "detect"),
    ("yolo26{}n{}.yaml", "yolo26{}s{}.yaml", "segment"),
    ("yolo26{}n{}.yaml", "yolo26{}s{}.yaml", "pose"),
    ("yolo26{}n{}.yaml", "yolo26{}s{}.yaml", "obb"),
    ("yolo11{}n{}.yaml", "yolo11{}s{}.yaml", "detect"),
    ("yolov8{}n{}.yaml", "yolov8{}s{}.yaml", "detect"),
]


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, relative: float, what: str) -> None:
    scale = theirs.abs().max().clamp_min(1e-12)
    assert ((ours - theirs).abs().max() / scale) <= relative, what


@pytest.mark.parametrize(("student_name", "teacher_name", "task"), PAIRS)
def test_losses_and_gradients_equal_ultralytics(student_name: str, teacher_name: str, task: str) -> None:
    student = build_model(student_name.format("", SUFFIX[task]), task)
    teacher_model = teach(build_model(teacher_name.format("", SUFFIX[task]), task, seed=1))
    reference = DistillationModel(teacher_model=deepcopy(teacher_model), student_model=deepcopy(student))
    projector = Projector(neck_channels(student), neck_channels(teacher_model))
    projector.load_state_dict(reference.projector.state_dict())
    ours = DistillTask(student, projector, LOSSES["sl2"]).train()
    teacher = Teacher(teacher_model, CPU, torch.float32)
    reference.train()

    batch = preprocessed(shard_batch(4, task))
    torch.manual_seed(5)
    their_loss, their_items = reference(dict(batch))
    their_loss.sum().backward()
    torch.manual_seed(5)
    losses = ours(dict(batch), teacher.look(batch["img"]), weight=6.0)
    losses[OBJECTIVE].backward()

    assert losses[DISTILLATION_LOSS] > 0
    assert [name for name in losses if name != OBJECTIVE] == list(their_items)
    for name, value in their_items.items():
        assert_close(losses[name], value.squeeze(), 1e-5, name)
    assert_close(losses[OBJECTIVE], their_loss.sum(), 1e-5, OBJECTIVE)
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters()}
    largest = max(gradient.abs().max() for gradient in theirs.values() if gradient is not None)
    for name, parameter in ours.named_parameters():
        expected = theirs[name]
        assert (parameter.grad is None) == (expected is None), name
        if expected is not None and expected.abs().max() > 1e-5 * largest:  # the rest is zero but for rounding
            assert_close(parameter.grad, expected, 1e-4, name)


def plan(**fields: int) -> Plan:
    return Plan(**({"epochs": 5, "steps_per_epoch": 7, "batch": 16, "images": 112, "classes": 3} | fields))


@pytest.mark.parametrize("name", ["auto", "SGD", "MuSGD", "AdamW"])
def test_optimizer_groups_are_ultralytics(name: str) -> None:
    student = build_model("yolo26n.yaml", optimizer=name)
    task = DistillTask(student, Projector((64, 128, 256), (128, 256, 512)), LOSSES["sl2"])
    optimizer, _ = build(task, student.args, plan())
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
    optimizer, schedule = build(task, arguments, plan())
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
