"""Losses and gradients of one shard against those of the installed Ultralytics' DistillationModel."""

from copy import deepcopy

import pytest
import torch
from ultralytics.nn.distill_model import DistillationModel

from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, OBJECTIVE, DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.models import CPU, SUFFIX, build, preprocessed, shard_batch, teach

FAMILIES = ("yolo26", "yolo11", "yolov8")


def assert_close(ours: torch.Tensor, theirs: torch.Tensor, relative: float, what: str) -> None:
    scale = theirs.abs().max().clamp_min(1e-12)
    assert ((ours - theirs).abs().max() / scale) <= relative, what


@pytest.mark.parametrize("task", SUFFIX)
@pytest.mark.parametrize("family", FAMILIES)
def test_losses_and_gradients_equal_ultralytics(family: str, task: str) -> None:
    student = build(f"{family}n{SUFFIX[task]}.yaml", task)
    teacher_model = teach(build(f"{family}s{SUFFIX[task]}.yaml", task, seed=1))
    reference = DistillationModel(teacher_model=deepcopy(teacher_model), student_model=deepcopy(student))
    projector = Projector(neck_channels(student), neck_channels(teacher_model))
    projector.load_state_dict(reference.projector.state_dict())
    ours = DistillTask(student, projector, [Term(LOSSES["sl2"])]).train()
    teacher = Teacher(teacher_model, CPU, torch.float32)
    reference.train()

    batch = preprocessed(shard_batch(4, task))
    their_loss, their_items = reference(dict(batch))
    their_loss.sum().backward()
    losses = ours(dict(batch), teacher.infer(batch["img"]), weight=6.0)
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
