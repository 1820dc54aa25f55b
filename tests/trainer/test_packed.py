"""A teacher whose convolutions are packed sees what it saw before."""

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn.tasks import DetectionModel

from distill_trainer.distillation.features import Seen
from distill_trainer.packed import packable
from distill_trainer.precision import teacher_dtype
from distill_trainer.teacher import Teacher, cut_teacher
from trainer_support import CPU, build, teach

IMAGES = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))


def all_of(seen: Seen) -> list[Tensor]:
    return [*seen.features, *(level for branch in seen.logits for level in branch)]


def apart(found: Seen, wanted: Seen) -> float:
    pairs = zip(all_of(found), all_of(wanted), strict=True)
    return max(float((ours.float() - theirs.float()).norm() / theirs.float().norm()) for ours, theirs in pairs)


@pytest.mark.parametrize(
    ("architecture", "task"),
    [
        ("yolo26n.yaml", "detect"),
        ("yolo26n-seg.yaml", "segment"),
        ("yolo26n-pose.yaml", "pose"),
        ("yolo26n-obb.yaml", "obb"),
        ("yolo11n.yaml", "detect"),
        ("yolo12n.yaml", "detect"),
        ("yolov8n.yaml", "detect"),
        ("yolov9t.yaml", "detect"),
        ("yolov9c.yaml", "detect"),
        ("yolov10n.yaml", "detect"),
    ],
)
def test_features_and_logits_are_the_same(architecture: str, task: str) -> None:
    model = teach(build(architecture, task, seed=1))
    plain, packed = Teacher(model, CPU, torch.float32), Teacher(model, CPU, torch.float32)
    packed.pack(IMAGES.shape)
    assert apart(packed.look(IMAGES), plain.look(IMAGES)) < 1e-5
    assert not any(type(module) is nn.Conv2d for module in packed.modules())
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in packed.look(IMAGES).features)
    assert max(parameter.dim() for parameter in packed.parameters()) == 1, "weights are there once"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_formats_are_packed_where_the_cpu_has_them(dtype: torch.dtype) -> None:
    model = teach(build("yolo26n.yaml", seed=1))
    exact = Teacher(model, CPU, torch.float32).look(IMAGES)
    seen = cut_teacher(model, CPU, dtype, IMAGES.shape, list, compiled=False).look(IMAGES)
    assert {tensor.dtype for tensor in all_of(seen)} == {dtype}
    assert 0 < apart(seen, exact) < 0.05


def test_other_shapes_and_channels_are_computed_too() -> None:
    model = DetectionModel("yolo26n.yaml", ch=1, nc=3, verbose=False).eval()
    plain, packed = Teacher(model, CPU, torch.float32), Teacher(model, CPU, torch.float32)
    packed.pack((2, 1, 96, 96))
    for batch, height, width in ((2, 96, 96), (1, 96, 96), (3, 64, 160)):
        images = torch.rand(batch, 1, height, width)
        assert apart(packed.look(images), plain.look(images)) < 1e-5


def test_the_teacher_of_a_job_on_cpus_is_packed_unless_it_is_compiled() -> None:
    model, dtype = teach(build("yolo26n.yaml", seed=1)), teacher_dtype("auto", CPU)
    assert packable(CPU, dtype)

    def convolutions(compiled: bool) -> int:
        teacher = cut_teacher(model, CPU, dtype, IMAGES.shape, list, compiled)
        return sum(type(module) is nn.Conv2d for module in teacher.modules())

    assert convolutions(compiled=False) == 0
    assert convolutions(compiled=True) > 0


def test_only_cpus_and_formats_that_onednn_computes_are_packed() -> None:
    assert not packable(torch.device("cuda"), torch.float32)
    assert not packable(CPU, torch.float64)
