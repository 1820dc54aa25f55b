"""Twenty steps on the same recorded batches: this trainer against Ultralytics' own training loop.

Ultralytics' part is its trainer as installed: DetectionTrainer, SegmentationTrainer, PoseTrainer or OBBTrainer with
`distill_model` set, and of it train() with _do_train(), _setup_train(), _build_train_pipeline(), build_optimizer(),
its scheduler, warm-up, accumulation, optimizer_step() with clipping, ModelEMA, class weights, and DistillationModel.
Replaced are only its surroundings: the data set is one of recorded batches, and nothing is validated or saved.

This trainer's part is its Loop, Step, Schedule and optimizer, put together as its `train` does.

Both compute in double precision, where only a different rule can make a difference: MuSGD's iteration, too, which
rounds to bfloat16 otherwise. In single precision rounding alone grows within twenty steps, to some 1e-3 of the momenta.

Ultralytics' known defects and how each is kept out of the comparison:
- the frozen teacher's parameters are in the optimizer's groups: they have no gradient and do not move; that they are
  there is asserted, and only the parameters that train are compared;
- the average of the weights holds the projector: only the student's average is compared;
- the shuffle that repeats, AMP, and the model's memory layout on CPUs: the batches are recorded, AMP is off, and its
  model is put into channels-last, as Ultralytics itself does on CUDA (MuSGD rounds differently in another layout).
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.support.models import SUFFIX, build, teach
from tests.support.parity import STEPS, TRAINING, ours, ultralytics

MANY = 40_000
"""Images of a data set for which `auto` chooses MuSGD: more than 10,000 iterations."""
RATES = {"lr", "initial_lr", "momentum", "weight_decay"}


@pytest.fixture(autouse=True)
def _double_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(Tensor, "float", Tensor.double)
    monkeypatch.setattr(Tensor, "bfloat16", Tensor.double)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor], tolerance: float, what: str) -> None:
    assert found.keys() == expected.keys(), what
    apart = {
        name: float((found[name] - value).abs().max() / value.abs().max().clamp_min(1e-6))
        for name, value in expected.items()
        if value.is_floating_point()
    }
    assert not {name: distance for name, distance in apart.items() if not distance <= tolerance}, what


TOLERANCE = 1e-5
"""Of each tensor's largest value."""

CASES: dict[str, tuple[str, str, int, dict[str, Any]]] = {
    "26-detect-auto-MuSGD": ("yolo26", "detect", MANY, {}),
    "26-detect-auto-AdamW": ("yolo26", "detect", 16, {}),
    "26-detect-SGD": ("yolo26", "detect", 16, {"optimizer": "SGD", "cos_lr": True, "freeze": 3, "cls_pw": 0.5}),
    "26-segment-auto-MuSGD": ("yolo26", "segment", MANY, {}),
    "26-pose-SGD": ("yolo26", "pose", 16, {"optimizer": "SGD"}),
    "26-obb-auto-AdamW": ("yolo26", "obb", 16, {}),
    "11-detect-SGD": ("yolo11", "detect", 16, {"optimizer": "SGD"}),
    "v8-detect-auto-MuSGD": ("yolov8", "detect", MANY, {}),
}


@pytest.mark.parametrize("case", CASES)
def test_twenty_steps_are_ultralytics(case: str, tmp_path: Path) -> None:
    family, task, images, training = CASES[case]
    student = build(f"{family}n{SUFFIX[task]}.yaml", task, **(TRAINING | training)).double()
    teacher = teach(build(f"{family}s{SUFFIX[task]}.yaml", task, seed=1).double())
    torch.save({"model": teacher}, tmp_path / "teacher.pt")
    theirs, projector = ultralytics(task, student, tmp_path / "teacher.pt", images, tmp_path)
    mine = ours(task, student, teacher, projector, images, teacher_dtype=torch.float64)

    optimizer = case.rsplit("-", 1)[-1]
    assert theirs.optimizer == optimizer
    assert mine.moves == theirs.moves
    assert STEPS // 4 < mine.moves[-1] < STEPS, "some steps only accumulate, and fewer do so in the warm-up"
    for found, there in zip(mine.groups, theirs.groups, strict=True):
        assert found.keys() == there.keys()
        for name, group in there.items():
            assert found[name].keys() == group.keys()
            assert [found[name][key] for key in RATES & group.keys()] == pytest.approx(
                [group[key] for key in RATES & group.keys()], rel=1e-12
            )
            assert {key: found[name][key] for key in group.keys() - RATES} == {
                key: group[key] for key in group.keys() - RATES
            }
    assert [list(losses) for losses in mine.losses] == [list(losses) for losses in theirs.losses]
    for found, there in zip(mine.losses, theirs.losses, strict=True):
        assert found == pytest.approx(there, rel=TOLERANCE)
    assert_same(mine.weights, theirs.weights, TOLERANCE, "weights")
    assert_same(mine.average, theirs.average, TOLERANCE, "average")
    assert mine.remembered.keys() == theirs.remembered.keys()
    for name, state in theirs.remembered.items():
        assert_same(mine.remembered[name], state, TOLERANCE, f"{optimizer}'s state of {name}")
