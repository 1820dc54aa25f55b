"""teacher.batchFraction: the teacher sees the last images of a batch, and the student is compared on those alone."""

import pytest
import torch
from torch import nn

from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.losses.registry import LOSSES, Signal
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import OBJECTIVE, DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.models import CPU, build, preprocessed, shard_batch, teach

NEEDS = {Signal.CLASS, Signal.BOX}
TERMS = ("spkd", "bckd", "iou")


def statistics_frozen(model: nn.Module) -> nn.Module:
    """The model in training mode, but with BatchNorm that does not look at the batch: its images do not meet."""
    for module in model.train().modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    return model


@pytest.mark.parametrize("share", [None, 0.5])
def test_the_student_is_compared_on_the_images_that_the_teacher_sees(share: float | None) -> None:
    student, model = build("yolo26n.yaml"), teach(build("yolo26s.yaml", seed=1))
    projector = Projector(neck_channels(student), neck_channels(model))
    balance = Balance(3, share) if share is not None else None
    task = DistillTask(student, projector, [Term(LOSSES[name], name=name) for name in TERMS], balance)
    statistics_frozen(task)
    batch = preprocessed(shard_batch(4))
    half = Teacher(model, CPU, torch.float32, NEEDS, batch_fraction=0.5).infer(batch["img"])
    assert {feature.shape[0] for feature in half.features} == {2}

    losses = task(dict(batch), half, weight=1.0)
    losses[OBJECTIVE].backward()
    assert all(parameter.grad is not None for parameter in projector.parameters())

    images = batch["img"][2:]
    last = {
        name: value[batch["batch_idx"] >= 2] for name, value in batch.items() if name in ("batch_idx", "cls", "bboxes")
    }
    last |= {"img": images, "batch_idx": last["batch_idx"] - 2}
    alone = task(last, Teacher(model, CPU, torch.float32, NEEDS).infer(images), weight=1.0)
    for name in TERMS:
        torch.testing.assert_close(losses[name], alone[name], rtol=1e-5, atol=1e-6)
    plain = task(dict(batch))
    torch.testing.assert_close(losses[OBJECTIVE] - plain[OBJECTIVE], losses["dis_loss"] * 4, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("fraction", "images", "seen"), [(1.0, 3, 3), (0.5, 3, 2), (0.01, 3, 1), (0.5, 1, 1)])
def test_the_teacher_sees_at_least_one_image(fraction: float, images: int, seen: int) -> None:
    model = teach(build("yolo26n.yaml"))
    output = Teacher(model, CPU, torch.float32, batch_fraction=fraction).infer(torch.rand(images, 3, 64, 64))
    assert output.features[0].shape[0] == seen
