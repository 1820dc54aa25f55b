"""A rank that trains on synthetic shards: the trainer's own step, DDP and state, without data set and launcher.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python -m tests.support.ranks.steps OUT SHARDS STEPS END NBS [STATE]

Writes the state after every step and a report of what DDP and the optimizer hold. Distillation ends before step END;
gradients accumulate to NBS images. STATE is one to go on from.
"""

import hashlib
import json
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from ultralytics.utils.torch_utils import ModelEMA

from distill_local.trainer_process import free_port
from distill_trainer.data import Shards
from distill_trainer.models.precision import student_precision
from distill_trainer.models.student import neck_channels
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.distillation.task import DistillTask
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
from distill_trainer.training.parallel.collectives import broadcast_state, process_group
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from distill_trainer.training.preprocess import Preprocess
from distill_trainer.training.state import TrainingProgress, TrainingState
from distill_trainer.training.step import Step
from tests.support.models import build, shard_batch, teach
from tests.support.ranks.start import start_ranks

SHARD_IMAGES = 2


def run_gang(
    out: Path,
    world_size: int,
    *,
    shards: int = 4,
    steps: int = 3,
    end: int = 100,
    nbs: int = 8,
    state: Path | None = None,
) -> Path:
    """Run the ranks to their end and return `out`, which holds state-<step>.pt and report.json of rank 0."""
    out.mkdir(parents=True)
    arguments = [out, shards, steps, end, nbs, *([state] if state else [])]
    ranks = start_ranks("tests.support.ranks.steps", [arguments] * world_size, free_port())
    assert [rank.wait(300) for rank in ranks] == [0] * world_size
    return out


@dataclass(frozen=True)
class Order:
    """What a rank is to do."""

    out: Path
    shards: int
    steps: int
    end: int
    nbs: int
    state: Path | None

    @classmethod
    def of(cls, argv: Sequence[str]) -> Self:
        shards, steps, end, nbs = map(int, argv[1:5])
        return cls(Path(argv[0]), shards, steps, end, nbs, Path(argv[5]) if len(argv) > 5 else None)


class Rank:
    """The training of one rank, as the trainer builds it."""

    def __init__(self, order: Order, environment: Environment) -> None:
        self._order, self._environment = order, environment
        student = build("yolo26n.yaml", optimizer="SGD", nbs=order.nbs, warmup_epochs=0.0)
        whole_teacher = teach(build("yolo26s.yaml", seed=1))
        self.teacher = Teacher(whole_teacher, environment.device, torch.float32)
        self._weight = WeightSchedule(6.0, constant, order.end)
        state = order.state
        self._over = state is not None and self._weight.over(int(state.stem.removeprefix("state-")))
        projector = None if self._over else Projector(neck_channels(student), neck_channels(whole_teacher))
        self.task = DistillTask(student, projector, LOSSES["sl2"]).to(memory_format=torch.channels_last).train()
        plan = TrainingPlan(epochs=5, steps_per_epoch=2, batch=order.shards * SHARD_IMAGES, images=16, classes=3)
        self.optimizer, self._schedule = build_optimizer(self.task, student.args, plan)
        self._precision = student_precision("fp32", environment.device)
        scaler = self._precision.scaler()
        self.training = TrainingState(self.task, ModelEMA(student), self.optimizer, scaler, TrainingProgress())

    def resume(self) -> None:
        """Go on from the state that rank 0 was given, if any."""
        state = self._order.state
        loaded = torch.load(state, weights_only=True) if state and self._environment.is_main else None
        if (saved := broadcast_state(loaded, self._environment.device)) is not None:
            self.training.restore(saved)

    def step(self) -> Step:
        """The step over this rank's shards."""
        return Step(
            self.training,
            self._schedule,
            teacher=None if self._over else self.teacher,
            weight=self._weight,
            precision=self._precision,
            preprocess=Preprocess(self._environment.device, 64, 32, 0.0, 0),
            shards=Shards.of_rank(self._environment.rank, self._environment.world_size, self._order.shards),
            environment=self._environment,
        )

    def train(self, step: Step) -> list[dict[str, Any]]:
        """Make all steps, with a state after each; what came of them."""
        environment, order, results = self._environment, self._order, []
        mine = Shards.of_rank(environment.rank, environment.world_size, order.shards).local
        while (number := self.training.progress.step) < order.steps:
            batches = [shard_batch(SHARD_IMAGES, seed=number * order.shards + shard) for shard in mine]
            wants_to_stop = environment.rank == environment.world_size - 1 and number == order.steps - 1
            result = step.run(number, batches, wants_to_stop, Phases())
            self.training.progress.finish_step(result.losses, 0.0)
            results.append({"losses": result.losses, "stop": result.stop, "moved": result.optimizer_stepped})
            if environment.is_main:
                torch.save(self.training.collect(), order.out / f"state-{self.training.progress.step}.pt")
        return results


def main(order: Order) -> None:
    """Train as ordered and report what DDP and the optimizer held."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    environment = from_torchrun(uses_cuda=False)
    rank = Rank(order, environment)
    before = _digest(rank.teacher.state_dict())
    with process_group(environment, 60):
        rank.resume()
        step = rank.step()
        replica = weakref.ref(step._model)
        replicated = sorted({name.removeprefix("module.").split(".")[0] for name, _ in step._model.named_parameters()})
        results = rank.train(step)
    trained = {id(parameter) for parameter in rank.task.parameters()}
    report = {
        "replicated": replicated,
        "replica_lives": replica() is not None,
        "trained": sorted({name.split(".")[0] for name, _ in rank.task.named_parameters()}),
        "optimized_elsewhere": sum(id(p) not in trained for g in rank.optimizer.param_groups for p in g["params"]),
        "teacher_parameters": sum(p.requires_grad for p in rank.teacher.parameters()),
        "teacher_unchanged": before == _digest(rank.teacher.state_dict()),
        "results": results,
    }
    if environment.is_main:
        (order.out / "report.json").write_text(json.dumps(report))


def _digest(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


if __name__ == "__main__":
    main(Order.of(sys.argv[1:]))
