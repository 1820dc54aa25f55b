"""A teacher in 8 bits sees what it sees in fp32, up to the rounding of a byte."""

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from distill_trainer.errors import Permanent
from distill_trainer.int8.convolution import Int8Conv
from distill_trainer.int8.ranged import Ranged
from distill_trainer.int8.ranges import Range
from distill_trainer.precision import teacher_dtype
from distill_trainer.teacher import Teacher
from trainer_support import CPU, build, teach

IMAGES = [torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]


def quantised(model: nn.Module) -> tuple[Teacher, Teacher, list[float]]:
    """The model as a teacher in fp32, in int8, and how far the second says it is off."""
    exact, in_bytes = Teacher(model, CPU, torch.float32), Teacher(model, CPU, torch.float32)
    return exact, in_bytes, in_bytes.quantise(IMAGES[:3], batch=2)


def off(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


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
def test_features_and_logits_are_those_of_fp32_but_for_some_percent(architecture: str, task: str) -> None:
    exact, in_bytes, said = quantised(teach(build(architecture, task, seed=1)))
    wanted, found = exact.look(IMAGES[3]), in_bytes.look(IMAGES[3])
    assert not any(type(module) is nn.Conv2d for module in in_bytes.modules())
    assert len(found.logits) == len(wanted.logits)
    for tensor in (*found.features, *(level for branch in found.logits for level in branch)):
        assert type(tensor) is torch.Tensor
        assert tensor.dtype is torch.float32
    apart = [off(ours, theirs) for ours, theirs in zip(found.features, wanted.features, strict=True)]
    assert min(apart) > 0
    assert max(apart) < 0.03
    assert said == pytest.approx(apart, rel=0.5), "it tells how far it is off"
    for ours, theirs in zip(found.logits, wanted.logits, strict=True):
        for level, wanted_level in zip(ours, theirs, strict=True):
            assert off(level.sigmoid(), wanted_level.sigmoid()) < 0.03


def test_an_image_looks_the_same_in_any_batch() -> None:
    _, teacher, _ = quantised(teach(build("yolo26n.yaml", seed=1)))
    alone, together = teacher.look(IMAGES[3][:1]), teacher.look(IMAGES[3])
    assert all(torch.equal(one[0], both[0]) for one, both in zip(alone.features, together.features, strict=True))


def test_another_size_of_images_needs_no_other_ranges() -> None:
    exact, in_bytes, _ = quantised(teach(build("yolo26n.yaml", seed=1)))
    images = torch.rand(1, 3, 96, 128)
    pairs = zip(in_bytes.look(images).features, exact.look(images).features, strict=True)
    assert max(off(found, wanted) for found, wanted in pairs) < 0.03


def test_features_are_not_rounded_to_bytes() -> None:
    _, teacher, _ = quantised(teach(build("yolo26n.yaml", seed=1)))
    assert len(teacher.look(IMAGES[3]).features[0].unique()) > 256


def test_the_same_samples_give_the_same_teacher() -> None:
    model = teach(build("yolo26n.yaml", seed=1))
    one, other = quantised(model)[1], quantised(model)[1]
    seen = zip(one.look(IMAGES[3]).features, other.look(IMAGES[3]).features, strict=True)
    assert all(torch.equal(first, second) for first, second in seen)


@pytest.mark.parametrize("activation", [nn.SiLU(), nn.ReLU(), nn.Identity()])
@pytest.mark.parametrize("groups", [1, 8])
@pytest.mark.parametrize("stride", [1, 2])
@torch.no_grad()
def test_a_convolution_is_off_by_the_rounding_of_its_inputs_weights_and_result(
    activation: nn.Module, groups: int, stride: int
) -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(8, 16, 3, stride, 1, groups=groups)
    x = torch.randn(2, 8, 10, 10).contiguous(memory_format=torch.channels_last)
    wanted = activation(conv(x))
    in_bytes = Int8Conv(conv, activation)
    in_bytes(x)
    in_bytes.settle(batch=2)
    found = in_bytes(x)
    step = found.range.scale
    assert found.is_bytes
    assert float((found.floats() - wanted).abs().max()) < 3 * step
    assert float((found.floats() - wanted).abs().mean()) < step / 2
    assert float(found.floats().min()) == pytest.approx(float(wanted.min()), abs=step)
    assert float(found.floats().max()) == pytest.approx(float(wanted.max()), abs=step)


@torch.no_grad()
def test_a_channel_with_small_weights_is_as_exact_as_the_others() -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 4, 3, bias=False), torch.randn(2, 8, 10, 10)
    conv.weight *= torch.tensor([1.0, 1e-2, 1e-4, 1e-6]).view(4, 1, 1, 1)
    wanted, in_bytes = conv(x), Int8Conv(conv, nn.Identity())
    in_bytes(x).exact()
    in_bytes.settle(batch=2)
    found = in_bytes(x).exact()
    assert [off(found[:, channel], wanted[:, channel]) < 0.02 for channel in range(4)] == [True] * 4


def ranged(values: torch.Tensor) -> Ranged:
    """`values` before ranges are known."""
    range_ = Range()
    range_.observe(values)
    return Ranged(values, range_)


def in_bytes(watched: Ranged) -> Ranged:
    """The same once they are."""
    return Ranged(watched.range.bytes_of(watched.data), watched.range)


def test_what_is_concatenated_or_added_shares_a_range_that_holds_all_of_it() -> None:
    small, large = ranged(torch.linspace(-0.2, 1, 16).view(1, 4, 2, 2)), ranged(torch.full((1, 4, 2, 2), 9.0))
    assert isinstance(torch.cat([small, large], 1), Ranged)
    total = small + large
    assert small.range.scale == large.range.scale == total.range.scale == pytest.approx(10.2 / 255)

    small, large = in_bytes(small), in_bytes(large)
    both = torch.cat([small, large], 1)
    assert both.is_bytes
    wanted = torch.cat([small.floats(), large.floats()], 1)
    assert torch.equal(both.floats(), wanted)
    assert torch.allclose((small + large).floats(), small.floats() + large.floats(), atol=1e-5)


def test_a_sum_outside_of_its_range_is_the_outermost_byte() -> None:
    some = ranged(torch.tensor([-1.0, 0.0, 1.0, 2.0]).view(1, 1, 2, 2))
    found = in_bytes(some)
    assert (found + found).data.flatten().tolist() == [0, 85, 255, 255]


def test_zero_is_a_byte_so_that_padding_stays_exact() -> None:
    some = ranged(torch.tensor([-0.2785, 7.3]).view(1, 1, 1, 2))
    assert float(some.range.values_of(torch.tensor(some.range.zero, dtype=torch.uint8))) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: functional.max_pool2d(x, 5, 1, 2),
        lambda x: nn.MaxPool2d(3, 2, 1)(x),
        lambda x: nn.Upsample(scale_factor=2)(x),
        lambda x: x.chunk(2, 1)[1],
        lambda x: x.split((1, 3), 1)[1],
    ],
)
def test_bytes_stay_bytes_where_they_are_only_moved(operation: object) -> None:
    x = in_bytes(ranged(torch.randn(2, 4, 8, 8).contiguous(memory_format=torch.channels_last)))
    assert callable(operation)
    found = operation(x)
    assert found.is_bytes
    assert torch.equal(found.floats(), operation(x.floats()))


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: functional.avg_pool2d(x, 2),
        lambda x: functional.interpolate(x, scale_factor=2, mode="bilinear"),
        lambda x: nn.MaxPool2d(3, 2, 1, ceil_mode=True)(x),
        lambda x: functional.silu(x),
        lambda x: x.flatten(2).transpose(1, 2),
        lambda x: torch.cat([x, torch.ones(2, 4, 8, 8)], 1),
        lambda x: torch.ones(2, 4, 8, 8) + x,
        lambda x: x + torch.ones(2, 4, 8, 8),
        lambda x: x * 2,
        lambda x: x[:, 1:],
    ],
)
def test_everything_else_gets_floats(operation: object) -> None:
    x = in_bytes(ranged(torch.randn(2, 4, 8, 8)))
    assert callable(operation)
    assert torch.equal(operation(x), operation(x.floats()))


@pytest.mark.parametrize("flags", ["avx2 avx512_vnni", "avx2 avx_vnni"])
def test_it_is_for_cpus_that_multiply_bytes(tmp_path: Path, flags: str) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text(f"flags\t\t: fpu {flags}\n")
    assert teacher_dtype("int8", CPU, cpuinfo) is torch.int8
    cpuinfo.write_text("flags\t\t: fpu avx2 avx512f\n")
    with pytest.raises(Permanent, match="neither AVX512_VNNI nor AVX_VNNI"):
        teacher_dtype("int8", CPU, cpuinfo)
    with pytest.raises(Permanent, match="for CPUs, not for cuda"):
        teacher_dtype("int8", torch.device("cuda"), cpuinfo)
