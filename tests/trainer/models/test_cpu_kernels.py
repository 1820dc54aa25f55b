"""A teacher that oneDNN computes fast, against the same without."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from distill_trainer.models.cpu_kernels import pack_convolutions
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.models import CPU, ONEDNN, build, packed, teach


@pytest.fixture(params=[1, 2])
def _threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield
    torch.set_num_threads(before)


def error(found: Tensor, expected: Tensor) -> float:
    return float((found.double() - expected.double()).norm() / expected.double().norm())


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("name", ["yolo26s.yaml", "yolov8s.yaml"])
def test_a_packed_teacher_computes_the_same_for_inputs_of_any_shape(name: str) -> None:
    whole = teach(build(name, seed=1))
    exact = Teacher(whole, CPU, torch.float64)
    for dtype in (torch.float32, torch.bfloat16):
        plain, fast = Teacher(whole, CPU, dtype), Teacher(whole, CPU, dtype)
        pack_convolutions(fast)
        packs = ONEDNN and (dtype is torch.float32 or torch.ops.mkldnn._is_mkldnn_bf16_supported())
        assert (packed(fast) > 50) is packs
        for size in (64, 96, 64):
            images = torch.rand(2, 3, size, size)
            found, again = fast.infer(images), fast.infer(images)
            expected, true = plain.infer(images), exact.infer(images)
            for level in range(3):
                assert torch.equal(found.features[level], again.features[level])
                rounded = error(expected.features[level], true.features[level])
                assert error(found.features[level], true.features[level]) < 2 * rounded


def test_what_onednn_cannot_compute_stays_as_it_is() -> None:
    """Double precision, and a layer whose BatchNorm has not been fused."""
    teacher = Teacher(teach(build("yolo26n.yaml")), CPU, torch.float64)
    pack_convolutions(teacher)
    assert packed(teacher) == 0
    student = build("yolo26n.yaml")
    pack_convolutions(student)
    assert packed(student) == 0
