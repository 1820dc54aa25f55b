"""A rank that trains on synthetic shards: the trainer's own step, DDP and state, without data set and launcher.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… python -m tests.support.ranks.steps OUT SHARDS STEPS END NBS SHARE SCALE [STATE]

Writes the state after every step and a report of what DDP and the optimizer hold. Distillation ends before step END;
gradients accumulate to NBS images. With a SCALE above 0 losses are scaled as for fp16, from this scale on. With a SHARE
above 0 the terms are spkd and iou, balanced at the neck. STATE is one
to go on from.
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

from distill_local.trainer_process import free_port
from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.distillation.terms import ULTRALYTICS
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.parallel.collectives import broadcast_state, process_group
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from distill_trainer.training.step_builder import StepBuilder
from tests.support.models import build, shard_batch, teach
from tests.support.ranks.template import fork_ranks

SHARD_IMAGES = 2


def run_gang(
    out: Path,
    world_size: int,
    *,
    shards: int = 4,
    steps: int = 3,
    end: int = 100,
    nbs: int = 8,
    share: float = 0.0,
    scale: float = 0.0,
    state: Path | None = None,
) -> Path:
    """Run the ranks to their end and return `out`, which holds state-<step>.pt and report.json of rank 0."""
    out.mkdir(parents=True)
    arguments = [out, shards, steps, end, nbs, share, scale, *([state] if state else [])]
    ranks = fork_ranks("tests.support.ranks.steps", [arguments] * world_size, free_port())
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
    share: float
    scale: float
    state: Path | None

    @classmethod
    def of(cls, argv: Sequence[str]) -> Self:
        shards, steps, end, nbs = map(int, argv[1:5])
        share, scale = map(float, argv[5:7])
        return cls(Path(argv[0]), shards, steps, end, nbs, share, scale, Path(argv[7]) if len(argv) > 7 else None)


@dataclass(frozen=True)
class Scaled(Precision):
    """fp32 with the loss scaling of fp16, which CPUs have no convolutions for; it overflows later, but alike."""

    scale: float = 1.0

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", init_scale=self.scale, growth_interval=2)


class Rank:
    """The training of one rank, as the trainer builds it."""

    def __init__(self, order: Order, environment: Environment) -> None:
        self._order, self._environment = order, environment
        student = build("yolo26n.yaml", optimizer="SGD", nbs=order.nbs, warmup_epochs=0.0).train()
        builder = StepBuilder(
            student,
            teach(build("yolo26s.yaml", seed=1)),
            TrainingPlan(epochs=5, steps_per_epoch=2, batch=order.shards * SHARD_IMAGES, images=16, classes=3),
            DistillationPlan(
                WeightSchedule(1.0 if order.share else 6.0, constant, order.end),
                [Term(LOSSES[name], name=name) for name in ("spkd", "iou")] if order.share else ULTRALYTICS,
                share=order.share or None,
                teacher_dtype=torch.get_default_dtype(),
            ),
            Shards.of_rank(environment.rank, environment.world_size, order.shards),
            environment,
            Scaled("cpu", None, order.scale) if order.scale else Precision.of("fp32", environment.device),
        )
        loaded = torch.load(order.state, weights_only=True) if order.state and environment.is_main else None
        self.training, schedule = builder.build_state(broadcast_state(loaded, environment.device))
        self.step = builder.build_step(self.training, schedule)

    def train(self) -> list[dict[str, Any]]:
        """Make all steps, with a state after each; what came of them."""
        environment, order, results = self._environment, self._order, []
        mine = Shards.of_rank(environment.rank, environment.world_size, order.shards).local
        while (number := self.training.progress.step) < order.steps:
            batches = [shard_batch(SHARD_IMAGES, seed=number * order.shards + shard) for shard in mine]
            wants_to_stop = environment.rank == environment.world_size - 1 and number == order.steps - 1
            result = self.step.run(number, batches, wants_to_stop, Phases()).read()
            self.training.progress.finish_step(result.losses, 0.0)
            told = {"losses": result.losses, "stop": result.stop, "moved": result.optimizer_stepped}
            results.append(told | {"skipped": result.skipped, "scale": result.amp_scale})
            if environment.is_main:
                torch.save(self.training.collect(), order.out / f"state-{self.training.progress.step}.pt")
        return results


def main(order: Order) -> None:
    """Train as ordered and report what DDP and the optimizer held."""
    torch.set_num_threads(1)
    if not order.scale:  # where only a different rule can make a difference: in fp32 rounding grows from step to step
        torch.set_default_dtype(torch.float64)
        torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    torch.use_deterministic_algorithms(True, warn_only=True)
    environment = from_torchrun(uses_cuda=False)
    with process_group(environment, timeouts(100)):
        rank = Rank(order, environment)
        task, optimizer, teacher = rank.training.task, rank.training.optimizer, rank.step._teacher
        before = teacher and digest(teacher.state_dict())
        replica = weakref.ref(rank.step._model)
        replicated = {name.removeprefix("module.").split(".")[0] for name, _ in rank.step._model.named_parameters()}
        results = rank.train()
    trained = {id(parameter) for parameter in task.parameters()}
    report = {
        "replicated": sorted(replicated),
        "replica_lives": replica() is not None,
        "trained": sorted({name.split(".")[0] for name, _ in task.named_parameters()}),
        "optimized_elsewhere": sum(id(p) not in trained for g in optimizer.param_groups for p in g["params"]),
        "teacher_parameters": teacher and sum(p.requires_grad for p in teacher.parameters()),
        "teacher_unchanged": teacher and before == digest(teacher.state_dict()),
        "results": results,
    }
    if environment.is_main:
        (order.out / "report.json").write_text(json.dumps(report))


def digest(state: dict[str, Any]) -> str:
    """SHA-256 of named tensors."""
    made = hashlib.sha256()
    for name, value in state.items():
        made.update(name.encode() + value.numpy().tobytes())
    return made.hexdigest()


if __name__ == "__main__":
    main(Order.of(sys.argv[1:]))
