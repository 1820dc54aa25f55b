"""One step on one rank: what moves, what must not, and what happens to a batch that breaks the numbers."""

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.modules import Conv

from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import train_mode
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.device.preprocess import Preprocess
from distill_trainer.training.device.results import StepResult
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.schedule import WeightSchedule, constant
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, DistillTask, Term, component_names
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.distillation.terms import TASK_OF
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.parallel.shards import frozen_running_statistics
from distill_trainer.training.step_builder import StepBuilder
from tests.support.models import ALONE, CPU, ONEDNN, build, packed, shard_batch, teach


class Run:
    """A training on one rank with two shards of two images."""

    def __init__(
        self,
        amp: str = "fp32",
        loss: str = "sl2",
        end: int = 50,
        distils: bool = True,
        min_improvement: float | None = None,
        **training: Any,
    ) -> None:
        student = build("yolo26n.yaml", **({"optimizer": "SGD", "nbs": 4, "warmup_epochs": 0.0} | training))
        teacher = teach(build("yolo26s.yaml", seed=1))
        builder = StepBuilder(
            student,
            teacher if distils else None,
            TrainingPlan(epochs=5, steps_per_epoch=10, batch=4, images=40, classes=3),
            DistillationPlan(WeightSchedule(6.0, constant, end), [Term(LOSSES[loss])], min_improvement=min_improvement),
            Shards(2, (0, 1)),
            ALONE,
            Precision.of(amp, CPU),
        )
        self.state, schedule = builder.build_state()
        self.task = self.state.task
        train_mode(student, student.args.freeze)
        self.step = builder.build_step(self.state, schedule)
        extras = (self.task.projector, self.step._teacher)
        self.given_back = [weakref.ref(module) for module in extras if module is not None]

    def __call__(self, number: int) -> StepResult:
        batches = [shard_batch(2, seed=2 * number + shard) for shard in (0, 1)]
        return self.step.run(number, batches, False, Phases()).read()

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: value.clone() for name, value in self.task.state_dict().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name in before if not torch.equal(before[name], after[name])}


def test_gradients_accumulate_to_the_nominal_batch() -> None:
    run = Run(nbs=12)
    moved = []
    for number in range(6):
        before = run.weights()
        result = run(number)
        parameters = {name for name, _ in run.task.named_parameters()}
        assert bool(changed(before, run.weights()) & parameters) is result.optimizer_stepped
        moved.append(result.optimizer_stepped)
    assert moved == [False, False, True, False, False, True]
    assert run.state.ema.updates == 2


def test_musgd_multiplies_few_zero_rows_on_cpus() -> None:
    """Half of its products are of zero rows if all matrices of one width are padded."""
    run = Run(optimizer="MuSGD")
    with FlopCounterMode(display=False) as counter:
        assert run(0).optimizer_stepped
    groups = [group for group in run.state.optimizer.param_groups if group["use_muon"]]
    sides = [sorted(p.flatten(1).shape) for group in groups for p in group["params"]]
    needed = sum(5 * 2 * (short**3 + short**2 * long) for short, long in sides)  # the two products by baddbmm
    assert needed <= counter.get_flop_counts()["Global"][torch.ops.aten.baddbmm] < 1.5 * needed


class Layouts(TorchDispatchMode):
    """Counts the gradients that SiLU's backward pass gets in channels-last, and in other layouts."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.other = 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.silu_backward.default:
            dense = args[0].is_contiguous(memory_format=torch.channels_last)
            self.dense, self.other = self.dense + dense, self.other + (not dense)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("amp", ["fp32", "bf16"])
def test_gradients_are_dense_in_bf16_and_change_no_bit(amp: str) -> None:
    dense, sliced = Run(amp), Run(amp)
    for module in sliced.task.student_model.modules():
        module._forward_hooks.clear()
    with Layouts() as without:
        sliced(0)
    with Layouts() as found:
        dense(0)
    assert without.other > 0
    assert found.dense + found.other == without.dense + without.other
    assert found.other == (0 if amp == "bf16" else without.other)
    assert not changed(sliced.weights(), dense.weights())
    assert not any(module._forward_hooks for module in dense.state.ema.ema.modules())  # which is pickled


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_step_with_non_finite_gradients_changes_nothing(poison: float) -> None:
    run = Run()
    assert not run(0).skipped
    before, average = run.weights(), {k: v.clone() for k, v in run.state.ema.ema.state_dict().items()}
    handle = run.task.student_model.model[0].register_forward_hook(lambda *call: call[-1] * poison)
    result = run(1)
    handle.remove()
    assert result.optimizer_stepped
    assert result.skipped
    assert not changed(average, run.state.ema.ema.state_dict())
    assert not changed(before, run.weights()) & {name for name, _ in run.task.named_parameters()}
    assert all(torch.isfinite(value).all() for value in run.weights().values() if value.is_floating_point())
    assert not run(2).skipped


def test_bf16_learns_the_same_direction() -> None:
    exact, rounded = Run(), Run(amp="bf16")
    ours, theirs = rounded(0), exact(0)
    assert ours.losses == pytest.approx(theirs.losses, rel=0.1)
    assert not ours.skipped


def test_frozen_layers_stay_bitwise() -> None:
    run = Run(freeze=3)
    before = run.weights()
    for number in range(2):
        run(number)
    frozen = [name for name in before if name.startswith(tuple(f"student_model.model.{layer}." for layer in range(3)))]
    assert frozen
    assert not changed(before, run.weights()) & set(frozen)


def test_a_restored_state_goes_on_bitwise() -> None:
    run = Run()
    run(0)
    saved = {"kept": run.state.collect()}
    saved = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, saved)
    run(1)
    again = Run()
    again.state.restore(saved["kept"])
    again(1)
    assert not changed(run.weights(), again.weights())
    assert not changed(run.state.ema.ema.state_dict(), again.state.ema.ema.state_dict())


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if loss.on not in TASK_OF])
def test_every_loss_trains_every_parameter(loss: str) -> None:
    """Those without a gradient would stop DDP, which does not search for them. A bias may have one of 0: cwd and pkd do
    not see a channel's mean.
    """
    run = Run(loss=loss)
    before = run.weights()
    losses = [run(number).losses[DISTILLATION_LOSS] for number in range(3)]
    assert all(value > 0 for value in losses)
    trained = {name for name, parameter in run.task.named_parameters() if parameter.requires_grad}
    untouched = trained - changed(before, run.weights())
    assert not {name for name in untouched if name.endswith(("conv.weight", "0.weight", "2.weight"))}


@pytest.mark.parametrize("loss", ["sl2", "logit"])
def test_at_its_end_distillation_gives_teacher_and_projector_back(loss: str) -> None:
    run = Run(loss=loss, end=2)
    run(0)
    assert all(reference() is not None for reference in run.given_back)
    assert run(1).losses[DISTILLATION_LOSS] > 0
    assert all(reference() is None for reference in run.given_back)
    assert run.state.collect()["projector"] is None
    remembered = {id(p) for group in run.state.optimizer.param_groups for p in group["params"]}
    assert remembered == {id(p) for p in run.task.student_model.parameters() if p.requires_grad}
    assert {id(parameter) for parameter in run.state.optimizer.state} <= remembered
    assert run(2).losses[DISTILLATION_LOSS] == 0


def test_an_epoch_that_hardly_improves_gives_teacher_and_projector_back() -> None:
    run = Run(min_improvement=0.5)
    for epoch, loss in enumerate([4.0, 1.9, 1.0]):  # the last is 47 % lower
        assert all(reference() is not None for reference in run.given_back), epoch
        run.state.progress.finish_step(run(epoch).losses | {DISTILLATION_LOSS: loss}, 0.0)
        run.step.end_epoch()
        run.state.progress.finish_epoch()
    assert run.state.progress.distillation_ended
    assert all(reference() is None for reference in run.given_back)
    assert run(3).losses[DISTILLATION_LOSS] == 0
    run.step.end_epoch()
    assert run.state.progress.distillation_ended


def test_after_its_end_a_step_is_a_plain_step_bitwise() -> None:
    run, plain = Run(end=2), Run(end=2, distils=False)
    run(0), run(1)
    tree_map = torch.utils._pytree.tree_map
    plain.state.restore(tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, run.state.collect()))
    for number in (2, 3):
        assert run(number) == plain(number)
    assert not changed(run.weights(), plain.weights())
    assert not changed(run.state.ema.ema.state_dict(), plain.state.ema.ema.state_dict())


@pytest.mark.parametrize(("world_size", "shards"), [(1, 1), (1, 4), (2, 4), (3, 4), (4, 4), (5, 8)])
def test_every_shard_is_run_once_and_rank_0_has_shard_0(world_size: int, shards: int) -> None:
    shares = [Shards.of_rank(rank, world_size, shards).local for rank in range(world_size)]
    assert sorted(shard for share in shares for shard in share) == list(range(shards))
    assert shares[0][0] == 0
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_more_ranks_than_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="5 ranks for 4 shards"):
        Shards.of_rank(0, 5, 4)


def test_running_statistics_move_only_for_shard_0() -> None:
    model: nn.Module = nn.Sequential(Conv(3, 4, 3)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with frozen_running_statistics(model):
        model(torch.rand(2, 3, 8, 8))
    assert not changed(before, model.state_dict())
    model(torch.rand(2, 3, 8, 8))
    statistics = {f"0.bn.{name}" for name in ("running_mean", "running_var", "num_batches_tracked")}
    assert changed(before, model.state_dict()) == statistics


@pytest.mark.parametrize("make", [lambda: Run().task, lambda: DistillTask(build("yolov8n-seg.yaml", "segment"))])
def test_component_names_are_those_of_the_losses(make: Callable[[], DistillTask]) -> None:
    names = component_names(make())
    assert names[0] == "box_loss"
    assert len(set(names)) == len(names)


def test_the_teacher_has_no_boxes_and_never_trains() -> None:
    whole = teach(build("yolo26s.yaml", seed=1))
    teacher = Teacher(whole, CPU, torch.float32).train()
    assert not teacher.training
    assert not any(p.requires_grad for p in teacher.parameters())
    assert not any(isinstance(module, nn.BatchNorm2d) for module in teacher.modules())
    boxes = sum(p.numel() for name, p in whole.named_parameters() if ".cv2." in name and name.startswith("model.23."))
    fewer = sum(p.numel() for p in whole.parameters()) - sum(p.numel() for p in teacher.parameters())
    assert fewer >= boxes > 0


def test_the_teachers_convolutions_are_packed_on_cpus() -> None:
    teacher = Run().step._teacher
    assert teacher is not None
    assert (packed(teacher) > 50) is ONEDNN


def test_multi_scale_sizes_depend_on_the_step_alone() -> None:
    preprocess = Preprocess(CPU, 128, 32, 0.5, seed=4)
    sizes = [preprocess.size_at(step) for step in range(50)]
    assert sizes == [Preprocess(CPU, 128, 32, 0.5, seed=4).size_at(step) for step in range(50)]
    assert set(sizes) == {64, 96, 128, 160, 192}
    batch = preprocess(shard_batch(2, imgsz=128), 0)
    assert batch["img"].shape[-1] == sizes[0]
    assert float(batch["img"].max()) <= 1.0


def test_images_are_channels_last_on_every_device() -> None:
    images = Preprocess(CPU, 64, 32, 0.0, 0)(shard_batch(2), 0)["img"]
    assert images.is_contiguous(memory_format=torch.channels_last)
