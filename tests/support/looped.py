"""A whole training of nine steps by the trainer's own loop, step and state, on one rank in the test's process.

Its batches are synthetic. Commits are kept in memory, and it asks to stop, or has images that are not finite, at a step
that the test names.
"""

import io
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.training.device.results import StepResult
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.loop import Loop
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.saving.state import TrainingProgress
from distill_trainer.training.step_builder import StepBuilder
from tests.support.models import ALONE, build, shard_batch, teach

STEPS_PER_EPOCH, EPOCHS = 3, 3
STEPS = STEPS_PER_EPOCH * EPOCHS


class Scaled(Precision):
    """fp32 with the loss scaling of fp16, which CPUs have no convolutions for."""

    def scaler(self) -> torch.amp.GradScaler:
        return torch.amp.GradScaler("cpu", enabled=True, growth_interval=3)


class Run:
    """A training of nine steps, with an optimizer step in every second one unless `nbs` says otherwise, and without
    distillation in the last two.
    """

    def __init__(
        self,
        late: bool,
        *,
        optimizer: str = "MuSGD",
        scaled: bool = False,
        share: float | None = None,
        min_improvement: float | None = None,
        poisoned: tuple[int, ...] = (),
        saved: dict[str, Any] | None = None,
        nbs: int = 4,
        commits_often: bool = True,
    ) -> None:
        """`poisoned`: steps whose images are not finite. `commits_often`: after every optimizer step."""
        self.student = build("yolo26n.yaml", optimizer=optimizer, nbs=nbs, warmup_epochs=0.0)
        weight = WeightSchedule(6.0 if share is None else 1.0, constant, STEPS - 2)
        distillation = DistillationPlan(weight, [Term(LOSSES["sl2"])], share=share, min_improvement=min_improvement)
        plan = TrainingPlan(EPOCHS, STEPS_PER_EPOCH, batch=2, images=6, classes=3)
        precision = (Scaled if scaled else Precision)("cpu", None)
        builder = StepBuilder(
            self.student, teach(build("yolo26s.yaml", seed=1)), plan, distillation, Shards(1, (0,)), ALONE,
            precision, late=late,
        )  # fmt: skip
        self.state, schedule = builder.build_state(saved)
        self.step = builder.build_step(self.state, schedule)
        self._plan, self._poisoned = plan, poisoned
        self.commits: dict[int, bytes] = {}
        self.results: list[StepResult] = []
        self.commits_often = commits_often
        self.stops_with = STEPS
        """The step with which a stop request travels."""
        self.committed_step, self._asked, self._resumed = 0, 0, self.state.progress.step

    def train(self) -> "Run":
        """Train to the end."""
        Loop(
            self._plan,
            self.step,
            self,
            commits=self,  # type: ignore[arg-type]
            observer=self,
            end_epoch=self._end_epoch,
            stop=self,  # type: ignore[arg-type]
            beat=lambda _: None,
        ).run()
        return self

    # What the loop asks of its data, commits, observer and stop flag.

    def batches(self, start: int, end: int) -> Iterator[list[dict[str, Any]]]:
        for step in range(start, end):
            batch = shard_batch(2, seed=step)
            if step in self._poisoned:
                batch["img"] = torch.full(batch["img"].shape, torch.nan)
            yield [batch]

    def end_unlabelled(self, step: int) -> None: ...

    def due(self) -> bool:
        return self.commits_often

    def commit(self) -> None:
        assert self.state.progress.step == self._resumed + self._asked  # of the newest step, and of no other
        self.committed_step = self.state.progress.step
        self.commits[self.committed_step] = frozen(self.state.collect())

    commit_and_wait = commit

    def epoch_started(self, epoch: int) -> None: ...

    def step_finished(
        self, progress: TrainingProgress, result: StepResult, seconds: float, phases: dict[str, float]
    ) -> None:
        assert seconds > 0
        assert {"data", "forward", "backward", "optimizer"} <= phases.keys()
        self.results.append(result)
        assert progress.step == self._resumed + len(self.results)

    def committing(self) -> None: ...

    def stopping(self) -> None: ...

    @property
    def requested(self) -> bool:
        self._asked += 1
        return self._resumed + self._asked > self.stops_with

    def _end_epoch(self) -> None:
        assert self.state.progress.step % STEPS_PER_EPOCH == 0
        self.state.progress.finish_epoch()


def frozen(state: dict[str, Any]) -> bytes:
    """A state as bytes; the time that it took is left out."""
    file = io.BytesIO()
    cloned = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, state)
    cloned["progress"]["seconds"] = 0.0
    torch.save(cloned, file)
    return file.getvalue()
