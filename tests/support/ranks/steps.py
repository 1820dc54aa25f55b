"""A rank that trains on synthetic shards: the trainer's own step, DDP and state, without data set and launcher.

    RANK=0 WORLD_SIZE=2 MASTER_ADDR=… MASTER_PORT=… python trainer_gang.py OUT SHARDS STEPS END NBS [STATE]

Writes the state after every step and a report of what DDP and the optimizer hold. Distillation ends before step END;
gradients accumulate to NBS images. STATE is one to go on from.
"""

import hashlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from distill_local.trainer_process import free_port

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
    port = free_port()
    arguments = [str(out), *map(str, (shards, steps, end, nbs)), *([str(state)] if state else [])]
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments],
            env=os.environ
            | {
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(world_size),
                "LOCAL_WORLD_SIZE": str(world_size),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": "1",
            },
        )
        for rank in range(world_size)
    ]
    assert [rank.wait(300) for rank in ranks] == [0] * world_size
    return out


def main(out: Path, shards: int, steps: int, end: int, nbs: int, state: Path | None) -> None:
    import torch
    from ultralytics.utils.torch_utils import ModelEMA

    from distill_trainer.data import Shards
    from distill_trainer.models.precision import student_precision
    from distill_trainer.models.student import neck_channels
    from distill_trainer.process.telemetry.phases import Phases
    from distill_trainer.training.distillation.losses.registry import LOSSES
    from distill_trainer.training.distillation.projector import Projector
    from distill_trainer.training.distillation.schedule import WeightSchedule
    from distill_trainer.training.distillation.schedules.constant import constant
    from distill_trainer.training.distillation.task import DistillTask
    from distill_trainer.training.distillation.teacher import Teacher
    from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
    from distill_trainer.training.parallel.collectives import broadcast_state, process_group
    from distill_trainer.training.parallel.environment import from_torchrun
    from distill_trainer.training.preprocess import Preprocess
    from distill_trainer.training.state import TrainingProgress, TrainingState
    from distill_trainer.training.step import Step
    from trainer_support import build, shard_batch, teach

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    environment = from_torchrun(uses_cuda=False)
    student = build("yolo26n.yaml", optimizer="SGD", nbs=nbs, warmup_epochs=0.0)
    whole_teacher = teach(build("yolo26s.yaml", seed=1))
    teacher = Teacher(whole_teacher, environment.device, torch.float32)
    weight = WeightSchedule(6.0, constant, end)
    over = state is not None and weight.over(int(state.stem.removeprefix("state-")))
    projector = None if over else Projector(neck_channels(student), neck_channels(whole_teacher))
    task = DistillTask(student, projector, LOSSES["sl2"]).to(memory_format=torch.channels_last).train()
    plan = TrainingPlan(epochs=5, steps_per_epoch=2, batch=shards * SHARD_IMAGES, images=16, classes=3)
    optimizer, schedule = build_optimizer(task, student.args, plan)
    precision = student_precision("fp32", environment.device)
    training = TrainingState(task, ModelEMA(student), optimizer, precision.scaler(), TrainingProgress())
    before = _digest(teacher.state_dict())

    with process_group(environment, 60):
        loaded = torch.load(state, weights_only=True) if state and environment.is_main else None
        if (saved := broadcast_state(loaded, environment.device)) is not None:
            training.restore(saved)
        my_shards = Shards.of_rank(environment.rank, environment.world_size, shards)
        step = Step(
            training,
            schedule,
            teacher=None if over else teacher,
            weight=weight,
            precision=precision,
            preprocess=Preprocess(environment.device, 64, 32, 0.0, 0),
            shards=my_shards,
            environment=environment,
        )
        replica = weakref.ref(step._model)
        replicated = sorted({name.removeprefix("module.").split(".")[0] for name, _ in step._model.named_parameters()})
        results = []
        while (number := training.progress.step) < steps:
            batches = [shard_batch(SHARD_IMAGES, seed=number * shards + shard) for shard in my_shards.mine]
            wants_to_stop = environment.rank == environment.world_size - 1 and number == steps - 1
            result = step.run(number, batches, wants_to_stop, Phases())
            training.progress.finish_step(result.losses, 0.0)
            results.append({"losses": result.losses, "stop": result.stop, "moved": result.optimizer_stepped})
            if environment.is_main:
                torch.save(training.collect(), out / f"state-{training.progress.step}.pt")
    trained = {id(parameter) for parameter in task.parameters()}
    report = {
        "replicated": replicated,
        "replica_lives": replica() is not None,
        "trained": sorted({name.split(".")[0] for name, _ in task.named_parameters()}),
        "optimized_elsewhere": sum(id(p) not in trained for g in optimizer.param_groups for p in g["params"]),
        "teacher_parameters": sum(p.requires_grad for p in teacher.parameters()),
        "teacher_unchanged": before == _digest(teacher.state_dict()),
        "results": results,
    }
    if environment.is_main:
        (out / "report.json").write_text(json.dumps(report))


def _digest(state: dict[str, Any]) -> str:
    digest = hashlib.sha256()
    for name, value in state.items():
        digest.update(name.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def _arguments(argv: Sequence[str]) -> tuple[Path, int, int, int, int, Path | None]:
    shards, steps, end, nbs = map(int, argv[1:5])
    return Path(argv[0]), shards, steps, end, nbs, Path(argv[5]) if len(argv) > 5 else None


if __name__ == "__main__":
    main(*_arguments(sys.argv[1:]))
