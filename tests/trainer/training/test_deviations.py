"""Differences from Ultralytics (docs/deviations.md) that no other file tests."""

from typing import Any

import torch

from distill_trainer.data.loading.order import SampleOrder
from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.models import CPU, build, preprocessed, shard_batch, teach


def test_initial_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(11)
    first = build("yolo26n.yaml", seed=3).state_dict()
    again, other = build("yolo26n.yaml", seed=3).state_dict(), build("yolo26n.yaml", seed=4).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert not torch.equal(first["model.0.conv.weight"], other["model.0.conv.weight"])


def test_the_heads_limit_of_detections_is_the_jobs() -> None:
    assert build("yolo26n.yaml", max_det=7).model[-1].max_det == 7


def test_the_last_batch_of_an_epoch_is_filled_up() -> None:
    order = SampleOrder(images=10, batch=4, seed=0)
    assert order.steps_per_epoch == 3
    epoch = [token.index for step in range(3) for token in order.shard(step, 0, 4)]
    assert sorted(epoch[:10]) == list(range(10))
    assert epoch[10:] == epoch[:2]


def test_a_distillation_may_be_compiled() -> None:
    """By the compiler's front end alone: the back end would need a C++ compiler and minutes."""
    student, model = build("yolo26n.yaml"), teach(build("yolo26s.yaml", seed=1))
    task = DistillTask(student, Projector(neck_channels(student), neck_channels(model)), [Term(LOSSES["sl2"])]).train()
    teacher, batch = Teacher(model, CPU, torch.float32), preprocessed(shard_batch(2))
    plain = task(dict(batch), teacher.infer(batch["img"]), weight=6.0)[DISTILLATION_LOSS]
    graphs: list[Any] = []

    def traced(graph: Any, _: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    teacher.compile(backend=traced)
    seen = teacher.infer(batch["img"])
    of_teacher = len(graphs)
    task.student_model.compile(backend=traced)
    compiled = task(dict(batch), seen, weight=6.0)[DISTILLATION_LOSS]
    assert 0 < of_teacher < len(graphs)
    assert torch.allclose(compiled, plain)
