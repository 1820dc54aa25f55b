"""Twenty steps on recorded batches: Ultralytics' own training loop, this trainer's, and what they did.

For test_twenty_steps.py, and for `make gpu-check` on a GPU.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import set_class_weights
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.loop import Loop
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.saving.state import TrainingProgress
from distill_trainer.training.step_builder import StepBuilder
from tests.support.models import ALONE, CLASSES, KEYPOINTS, shard_batch

EPOCHS, STEPS_PER_EPOCH, BATCH = 5, 4, 4
STEPS = EPOCHS * STEPS_PER_EPOCH
TRAINERS = {"detect": DetectionTrainer, "segment": SegmentationTrainer, "pose": PoseTrainer, "obb": OBBTrainer}
TRAINING: dict[str, Any] = {"epochs": EPOCHS, "batch": BATCH, "nbs": 4 * BATCH, "warmup_epochs": 2.0, "close_mosaic": 1}
"""Gradients accumulate over one to four steps, more and more of them during the warm-up."""
LABELS = [{"cls": np.array([[0.0], [1.0], [1.0], [2.0]])}]


@dataclass
class Trace:
    """What a training did, by parameter name and by step."""

    optimizer: str = ""
    losses: list[dict[str, float]] = field(default_factory=list)
    groups: list[dict[str, dict[str, Any]]] = field(default_factory=list)
    moves: list[int] = field(default_factory=list)
    """Moves of the optimizer after each step."""
    weights: dict[str, Tensor] = field(default_factory=dict)
    average: dict[str, Tensor] = field(default_factory=dict)
    remembered: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    """The optimizer's state."""


def trained_groups(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    """Hyperparameters of each parameter that trains, without this trainer's note of the momentum it began with."""
    names = {id(parameter): name for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {
        names[id(parameter)]: {key: value for key, value in group.items() if key not in ("params", "initial_momentum")}
        for group in optimizer.param_groups
        for parameter in group["params"]
        if id(parameter) in names
    }


def remembered(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
    return {
        name: {key: torch.as_tensor(value) for key, value in optimizer.state[parameter].items()}
        for name, parameter in model.named_parameters()
        if parameter in optimizer.state
    }


def recorded(step: int, task: str) -> dict[str, Any]:
    return shard_batch(BATCH, task, seed=100 + step)


class Images:
    labels = LABELS

    def __init__(self, images: int) -> None:
        self._images = images

    def __len__(self) -> int:
        return self._images


class Recording:
    """A data loader, as far as Ultralytics' loop asks, that gives the recorded batches of the running epoch."""

    batch_size, num_workers, drop_last = BATCH, 0, False

    def __init__(self, task: str, images: int, epoch: Callable[[], int]) -> None:
        self._task, self._epoch = task, epoch
        self.sampler = range(images)
        self.dataset = Images(images)

    def __len__(self) -> int:
        return STEPS_PER_EPOCH

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for position in range(STEPS_PER_EPOCH):
            yield recorded(self._epoch() * STEPS_PER_EPOCH + position, self._task)

    def reset(self) -> None:
        """Ultralytics asks for new workers when mosaic ends; there are none."""


def ultralytics(
    task: str, student: Any, teacher: Path, images: int, scratch: Path, device: str = "cpu"
) -> tuple[Trace, dict[str, Tensor]]:
    """Ultralytics' own training of a copy of `student`; and the projector that it began with. `device`: its argument of
    that name.
    """
    trace, projector = Trace(), {}

    class Recorded(TRAINERS[task]):  # type: ignore[misc]
        def get_dataset(self) -> dict[str, Any]:
            names = {"names": CLASSES, "nc": len(CLASSES), "channels": 3}
            return names | {"train": "", "val": "", "kpt_shape": list(KEYPOINTS)}

        def get_dataloader(self, *_: Any, **__: Any) -> Recording:
            return Recording(task, images, lambda: self.epoch)

        def validate(self) -> tuple[dict[str, float], float]:
            return {}, 0.0

        def save_model(self) -> bool:
            return False

        def final_eval(self) -> None:
            pass

    def begin(trainer: Any) -> None:
        projector.update({name: value.clone() for name, value in trainer.model.projector.state_dict().items()})
        trainer.model.to(memory_format=torch.channels_last)

    def stepped(trainer: Any) -> None:
        trace.losses.append({name: float(value) for name, value in trainer.loss_items.items()})
        trace.groups.append(trained_groups(trainer.model, trainer.optimizer))
        trace.moves.append(trainer.ema.updates)

    own = {key: getattr(student.args, key) for key in (*TRAINING, "optimizer", "cos_lr", "freeze", "cls_pw", "dis")}
    trainer = Recorded(
        overrides=own
        | {
            "model": "yolo26n.yaml",
            "data": "recorded.yaml",
            "imgsz": 64,
            "device": device,
            "amp": False,
            "plots": False,
        }
        | {"distill_model": str(teacher), "save_dir": str(scratch / "theirs"), "val": False, "save": False}
    )
    trainer.model = deepcopy(student)  # as YOLO().train() hands its model over
    trainer.add_callback("on_pretrain_routine_end", begin)
    trainer.add_callback("on_train_batch_end", stepped)
    trainer.train()

    frozen = {id(parameter) for parameter in trainer.model.teacher_model.parameters()}
    assert any(id(parameter) in frozen for group in trainer.optimizer.param_groups for parameter in group["params"])
    trace.weights = without_teacher(trainer.model.state_dict())
    trace.average = dict(trainer.ema.ema.student_model.state_dict())
    trace.optimizer = type(trainer.optimizer).__name__
    trace.remembered = remembered(trainer.model, trainer.optimizer)
    return trace, projector


def without_teacher(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: value for name, value in state.items() if not name.startswith("teacher_model.")}


def ours(
    task_name: str,
    student: Any,
    teacher: Any,
    projector: dict[str, Tensor],
    images: int,
    teacher_dtype: torch.dtype = torch.float32,
    environment: Environment = ALONE,
) -> Trace:
    """This trainer's training of `student` on one rank, in fp32 or whatever `student` and `teacher` are in."""
    trace, arguments = Trace(), student.args
    set_class_weights(student, LABELS[0]["cls"][:, 0], arguments.cls_pw)
    plan = TrainingPlan(EPOCHS, STEPS_PER_EPOCH, BATCH, images, len(CLASSES))
    weight = WeightSchedule(arguments.dis, constant, STEPS + 1)  # so that the projector is there to be compared
    distillation = DistillationPlan(weight, teacher_dtype=teacher_dtype)
    precision = Precision.of("fp32", environment.device)
    builder = StepBuilder(student, teacher, plan, distillation, Shards(1, (0,)), environment, precision)
    state, schedule = builder.build_state()
    state.task.projector.load_state_dict(projector)
    step = builder.build_step(state, schedule)

    def step_finished(_: TrainingProgress, result: Any, *__: Any) -> None:
        trace.losses.append(result.losses)
        trace.groups.append(trained_groups(state.task, state.optimizer))
        trace.moves.append(state.ema.updates)

    class Batches:
        def batches(self, start: int, end: int) -> Iterator[list[dict[str, Any]]]:
            for number in range(start, end):
                yield [recorded(number, task_name)]

    nothing: Any = lambda *_: None  # noqa: E731
    Loop(
        plan,
        step,
        Batches(),
        commits=SimpleNamespace(commit=nothing, due=nothing, commit_and_wait=nothing),
        observer=SimpleNamespace(epoch_started=nothing, step_finished=step_finished, committing=nothing),
        end_epoch=state.progress.finish_epoch,
        stop=SimpleNamespace(requested=False),
        beat=nothing,
    ).run()
    trace.weights = dict(state.task.state_dict())
    trace.remembered = remembered(state.task, state.optimizer)
    trace.average = dict(state.ema.ema.state_dict())
    return trace
