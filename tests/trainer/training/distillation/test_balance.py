"""The balance at the neck: what it measures, what it scales, and that nothing else changes."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_trainer.models.student import neck_channels, train_mode
from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.losses.registry import LOSSES, Signal
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import OBJECTIVE, DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.models import CPU, build, preprocessed, shard_batch, teach


@pytest.fixture
def batch() -> dict[str, Any]:
    return preprocessed(shard_batch(2))


class Pass:
    """A task with a balance, of which forward and backward passes are made."""

    def __init__(self, batch: dict[str, Any], share: float, losses: Sequence[str] = ("spkd",)) -> None:
        student, teacher = build("yolo26n.yaml"), teach(build("yolo26s.yaml", seed=1))
        torch.manual_seed(0)
        projector = Projector(neck_channels(student), neck_channels(teacher))
        self.balance = Balance(3, share)
        self.task = DistillTask(student, projector, [Term(LOSSES[name]) for name in losses], self.balance)
        train_mode(student, None)
        self.batch = batch
        self.seen = Teacher(teacher, CPU, torch.float32, {Signal.CLASS, Signal.BOX}).infer(batch["img"])

    def gradients(self, factor: float = 1.0) -> dict[str, Tensor]:
        self.balance.begin_step(factor)
        self.task.zero_grad()
        self.task(dict(self.batch), self.seen, factor)[OBJECTIVE].backward()
        return {name: p.grad.clone() for name, p in self.task.named_parameters() if p.grad is not None}


def test_the_losses_get_their_share_of_the_tasks_gradient_on_each_level(batch: dict[str, Any]) -> None:
    one = Pass(batch, share=0.5)
    one.gradients()
    first = one.balance.measured()
    one.balance.end_step(first)
    assert (first[:, :2] > 0).all()
    plain = one.gradients(factor=0.0)
    whole, half = one.gradients(factor=1.0), one.gradients(factor=0.5)
    task, distillation = one.balance.measured()[:, 0].sqrt(), one.balance.measured()[:, 1].sqrt()
    factors = one.balance._factors
    torch.testing.assert_close(factors * distillation, 0.25 * task, rtol=1e-3, atol=0)
    for name, expected in plain.items():
        if name.startswith("student_model"):
            torch.testing.assert_close(half[name] - expected, (whole[name] - expected) / 2, rtol=1e-2, atol=1e-3)
        else:
            assert torch.equal(half[name], expected), f"the projector learns at full rate: {name}"


def test_a_share_of_nothing_is_plain_training(batch: dict[str, Any]) -> None:
    one = Pass(batch, share=0.5)
    found = one.gradients(factor=0.0)
    one.task.balance = one.task.projector = None
    one.task.terms = ()
    for name, expected in one.gradients().items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-5)


def test_a_loss_on_boxes_is_part_of_the_tasks_gradient(batch: dict[str, Any]) -> None:
    alone, both = Pass(batch, share=0.5), Pass(batch, share=0.5, losses=("spkd", "iou"))
    alone.gradients(), both.gradients()
    ours, theirs = alone.balance.measured(), both.balance.measured()
    torch.testing.assert_close(ours[:, 1], theirs[:, 1])
    assert (ours[:, 0] - theirs[:, 0]).abs().min() > 1e-3 * ours[:, 0].min()


def test_no_copy_of_the_student_has_the_fork(batch: dict[str, Any]) -> None:
    one = Pass(batch, share=0.5)
    one.gradients()
    assert not one.task.student_model.model[-1]._forward_pre_hooks


def test_averages_follow_what_is_measured_and_leave_out_what_is_not_finite() -> None:
    balance = Balance(1, 0.5)
    balance.end_step(torch.tensor([[float("nan"), 1.0, 0.0]]))
    assert float(balance.steps) == 0
    balance.end_step(torch.tensor([[4.0, 1.0, -2.0]]))
    assert balance.averages.tolist() == [[4.0, 1.0, -2.0]]
    assert balance.summary().tolist() == [0.5, -1.0]
    balance.begin_step(1.0)
    assert balance._factors.tolist() == [1.0]
    balance.end_step(torch.tensor([[8.0, 1.0, 0.0]]))
    assert balance.averages[0].tolist() == pytest.approx([4.08, 1.0, -1.96])


def test_without_anything_measured_nothing_is_distilled() -> None:
    balance = Balance(2, 0.5)
    balance.begin_step(1.0)
    assert balance._factors.tolist() == [0.0, 0.0]
    assert not balance.measured().any()
