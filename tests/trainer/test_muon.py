"""MuSGD without padding is MuSGD, bit for bit."""

from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.optim import MuSGD, muon

from distill_trainer import optim
from distill_trainer.muon import UnpaddedMuSGD, orthogonalised
from distill_trainer.task import DistillTask
from trainer_support import build

theirs = muon.zeropower_via_newtonschulz5


def padded(rows: list[int], most: int, columns: int) -> Tensor:
    """Matrices of so many rows, with zero rows up to `most`."""
    torch.manual_seed(0)
    matrices = torch.zeros(len(rows), most, columns)
    for matrix, count in zip(matrices, rows, strict=True):
        matrix[:count] = torch.randn(count, columns)
    return matrices


@pytest.mark.parametrize(
    ("rows", "most", "columns"),
    [
        ([128, 64, 64, 32], 128, 288),
        ([128, 64, 32], 128, 128),
        ([128, 96, 64, 40, 16], 128, 64),  # some of these are wider than high, but all are taken as higher than wide
        ([256, 16], 256, 9),
        ([64], 64, 576),
        ([32, 0], 32, 64),
    ],
)
def test_matrices_without_their_zero_rows_give_the_same_bits(rows: list[int], most: int, columns: int) -> None:
    matrices = padded(rows, most, columns)
    found = orthogonalised(matrices)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, theirs(matrices))


def test_rows_of_zeros_are_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    multiplied: list[tuple[int, ...]] = []

    def counted(matrices: Tensor, eps: float) -> Tensor:
        multiplied.append(tuple(matrices.shape))
        return theirs(matrices, eps)

    monkeypatch.setattr("distill_trainer.muon._orthogonalised_with_padding", counted)
    orthogonalised(padded([128, 64, 64, 32], 128, 288))
    assert sorted(multiplied) == [(1, 32, 288), (1, 128, 288), (2, 64, 288)]


def test_moves_are_those_of_ultralytics_optimizer_which_stays_as_it_is() -> None:
    student = build("yolo26n.yaml", optimizer="MuSGD").to(memory_format=torch.channels_last)
    plan = optim.Plan(epochs=2, steps_per_epoch=3, batch=4, images=12, classes=3)
    ours = DistillTask(student)
    optimizer, _ = optim.build(ours, student.args, plan)
    assert type(optimizer) is UnpaddedMuSGD
    reference = deepcopy(ours)
    same = dict(zip(ours.parameters(), reference.parameters(), strict=True))
    groups: list[dict[str, Any]] = [
        group | {"params": [same[parameter] for parameter in group["params"]]} for group in optimizer.param_groups
    ]
    with_padding = MuSGD(groups, muon=optimizer.muon, sgd=optimizer.sgd)
    torch.manual_seed(0)
    for _ in range(3):
        for mine, other in same.items():
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        optimizer.step()
        assert muon.zeropower_via_newtonschulz5 is theirs
        with_padding.step()
        assert all(torch.equal(mine, other) for mine, other in same.items())
