"""What is undone on the device, and what is not."""

import math

import pytest
import torch
from torch import Tensor, nn

from distill_trainer.training.device.gate import Buffers, optimizer_tensors, undone_unless


def tensors() -> list[Tensor]:
    image = torch.rand(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    return [image, torch.tensor([0.0, -0.0, math.inf]), torch.tensor(3.0), torch.ones(3).half(), torch.rand(2).double()]


@pytest.mark.parametrize("applied", [True, False])
def test_changes_are_kept_or_undone_bit_for_bit(applied: bool) -> None:
    changed, before, after = tensors(), [], []
    before = [tensor.clone() for tensor in changed]
    with undone_unless(torch.tensor(applied), changed):
        for tensor, value in zip(changed, (math.nan, -0.0, 4.0, math.inf, 0.0), strict=True):
            tensor.fill_(value)
        after = [tensor.clone() for tensor in changed]
    for tensor, expected in zip(changed, after if applied else before, strict=True):
        assert tensor.stride() == expected.stride()
        assert bits(tensor) == bits(expected)


def bits(tensor: Tensor) -> bytes:
    return bytes(tensor.contiguous().numpy().tobytes())


def test_an_optimizer_has_its_parameters_and_its_state() -> None:
    model = nn.Linear(2, 1)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 2)).sum().backward()
    assert len(optimizer_tensors(optimizer)) == 2
    optimizer.step()
    assert len(optimizer_tensors(optimizer)) == 2 + 2 * 3  # step, exp_avg, exp_avg_sq


@pytest.mark.parametrize("applied", [True, False])
def test_only_buffers_that_are_not_finite_come_from_the_average(applied: bool) -> None:
    model, average = (nn.Sequential(nn.BatchNorm2d(2), nn.BatchNorm2d(3)) for _ in range(2))
    buffers = Buffers(model, average)
    for number, buffer in enumerate(average.buffers()):
        buffer.fill_(number)
    model[0].running_mean[1], model[1].running_var[0] = math.nan, -math.inf
    model[1].num_batches_tracked.fill_(7)
    expected = {name: buffer.clone() for name, buffer in model.named_buffers()}
    if not applied:
        for name in ("0.running_mean", "1.running_var"):
            expected[name] = average.get_buffer(name).clone()
    buffers.restore_unless(torch.tensor(applied))
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, expected[name], rtol=0, atol=0, equal_nan=True)
