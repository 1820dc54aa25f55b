"""A training whose results are read late is the one whose results are read at once, bit for bit; on CPUs, where both
can run."""

import io
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_api.errors import Retryable, Stopped
from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.training import loop
from distill_trainer.training.device.results import StepResult
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.loop import Loop
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.state import TrainingProgress
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
    ) -> None:
        """`poisoned`: steps whose images are not finite."""
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
        self.commits_often = True
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


@cache
def trained(late: bool, **options: Any) -> Run:
    """A training that has ended by itself."""
    return Run(late, **options).train()


def frozen(state: dict[str, Any]) -> bytes:
    """A state as bytes; the time that it took is left out."""
    file = io.BytesIO()
    cloned = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, Tensor) else x, state)
    cloned["progress"]["seconds"] = 0.0
    torch.save(cloned, file)
    return file.getvalue()


def thaw(state: bytes) -> dict[str, Any]:
    return dict(torch.load(io.BytesIO(state), weights_only=True))


def assert_bitwise(ours: bytes, theirs: bytes) -> None:
    found, expected = thaw(ours), thaw(theirs)
    leaves = torch.utils._pytree.tree_leaves_with_path
    for (path, value), (other, wanted) in zip(leaves(found), leaves(expected), strict=True):
        assert path == other
        same = torch.equal(value, wanted) if isinstance(wanted, Tensor) else repr(value) == repr(wanted)  # nan is nan
        assert same, torch.utils._pytree.keystr(path)


VARIANTS: dict[str, dict[str, Any]] = {
    "calm": {"poisoned": ()},
    "scaled": {"scaled": True},
    "balanced": {"share": 0.5, "scaled": True},
    "NAdam": {"optimizer": "NAdam"},
    "ends early": {"min_improvement": 0.99, "poisoned": ()},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_late_results_change_no_bit_of_any_state(variant: str) -> None:
    """Non-finite gradients in the first optimizer step, which creates the optimizer's state, and in a later one."""
    options = {"poisoned": (1, 5)} | VARIANTS[variant]
    late, at_once = trained(True, **options), trained(False, **options)
    assert list(late.commits) == list(at_once.commits)
    for step, state in at_once.commits.items():
        assert_bitwise(late.commits[step], state)
    assert repr(late.results) == repr(at_once.results)  # nan is nan
    skipped = [number for number, result in enumerate(at_once.results) if result.skipped]
    assert skipped == list(options["poisoned"])
    assert late.state.progress.distillation_ended is (variant == "ends early")


@pytest.mark.parametrize("commits_often", [True, False])
def test_a_late_stop_is_one_step_later_whoever_has_read_before(commits_often: bool) -> None:
    """A rank that commits has read the result at once; it must stop where the others do."""
    calm, late = trained(False, nbs=2), Run(True, nbs=2)
    late.stops_with, late.commits_often = 3, commits_often
    with pytest.raises(Stopped) as stopped:
        late.train()
    assert stopped.value.step == stopped.value.committed_step == 5
    assert_bitwise(late.commits[5], calm.commits[5])


def test_at_once_a_stop_is_obeyed_in_its_own_step() -> None:
    run = Run(False, nbs=2)
    run.stops_with = 3
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert stopped.value.step == stopped.value.committed_step == 4


def test_a_late_stop_at_the_end_of_an_epoch_needs_no_other_step() -> None:
    run = Run(True, nbs=2)
    run.stops_with = STEPS_PER_EPOCH - 1
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert stopped.value.step == stopped.value.committed_step == STEPS_PER_EPOCH


@pytest.mark.parametrize("step", [4, 8])
def test_a_late_training_resumes_bitwise(step: int) -> None:
    calm = trained(True, poisoned=(1, 5), optimizer="NAdam")
    resumed = Run(True, poisoned=(1, 5), optimizer="NAdam", saved=thaw(calm.commits[step])).train()
    assert_bitwise(resumed.commits[STEPS], calm.commits[STEPS])


@pytest.mark.parametrize("commits_often", [True, False])
def test_all_ranks_give_up_at_the_same_step(commits_often: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MAX_SKIPPED_STEPS", 3)
    run = Run(True, nbs=2, poisoned=tuple(range(1, STEPS)))
    run.commits_often = commits_often
    with pytest.raises(Retryable, match="not finite in 3 consecutive steps up to step 4"):
        run.train()
    assert list(run.commits) == ([1] if commits_often else [])
