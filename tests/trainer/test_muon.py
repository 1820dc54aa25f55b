"""MuSGD on CPUs computes what Ultralytics' does, and more exactly."""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.optim import MuSGD, muon

from distill_trainer import optim
from distill_trainer.muon import GramMuSGD, orthogonalised
from distill_trainer.task import DistillTask
from trainer_support import build

theirs = muon.zeropower_via_newtonschulz5


@contextmanager
def double_precision() -> Iterator[None]:
    """In place of the rounding to bf16 and to fp32: what is left is the rule."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "bfloat16", Tensor.double)
        patch.setattr(Tensor, "float", Tensor.double)
        yield


def padded(rows: list[int], most: int, columns: int) -> Tensor:
    """Matrices of so many rows, with zero rows up to `most`."""
    torch.manual_seed(0)
    matrices = torch.zeros(len(rows), most, columns)
    for matrix, count in zip(matrices, rows, strict=True):
        matrix[:count] = torch.randn(count, columns)
    return matrices


def ill_conditioned() -> Tensor:
    """Singular values over six decades."""
    torch.manual_seed(0)
    left = torch.linalg.qr(torch.randn(64, 64, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(144, 64, dtype=torch.float64)).Q
    return (left @ torch.diag(torch.logspace(0, -6, 64, dtype=torch.float64)) @ right.T)[None]


def of_rank(rank: int) -> Tensor:
    torch.manual_seed(0)
    return (torch.randn(64, rank) @ torch.randn(rank, 96))[None]


MATRICES = {
    "wide": padded([128, 64, 64, 32], 128, 288),
    "square": padded([128, 64, 32], 128, 128),
    "tall, and wide without its zero rows": padded([128, 96, 64, 40, 16], 128, 64),
    "of one kernel": padded([256, 16], 256, 9),
    "of zeros": padded([32, 0], 32, 64),
    "ill-conditioned": ill_conditioned(),
    "of rank 1": of_rank(1),
    "of rank 20": of_rank(20),
    "tiny": padded([64, 16], 64, 144) * 1e-12,
    "huge": padded([64, 16], 64, 144) * 1e12,
}


@pytest.mark.parametrize("name", MATRICES)
def test_it_is_ultralytics_iteration_but_for_rounding(name: str) -> None:
    matrices = MATRICES[name]
    with double_precision():
        exact = theirs(matrices.double())
        assert orthogonalised(matrices.double()).sub(exact).norm() <= 1e-7 * exact.norm()
    rounded = orthogonalised(matrices.float())
    assert rounded.dtype is torch.float32
    ours, bf16 = ((found.double() - exact).norm() for found in (rounded, theirs(matrices.float())))
    assert ours <= 1e-3 * exact.norm()
    assert ours <= bf16 / 10


def test_rows_of_zeros_are_not_multiplied() -> None:
    def work(matrices: Tensor) -> int:
        with FlopCounterMode(display=False) as counter:
            orthogonalised(matrices)
        return counter.get_total_flops()

    apart = work(padded([128], 128, 288)) + 2 * work(padded([64], 64, 288)) + work(padded([32], 32, 288))
    assert work(padded([128, 64, 64, 32], 128, 288)) == apart


def pair_of_optimizers() -> tuple[Any, Any, dict[Tensor, Tensor]]:
    """This trainer's optimizer, Ultralytics' on a copy of the model, and the parameters of both."""
    student = build("yolo26n.yaml", optimizer="MuSGD").to(memory_format=torch.channels_last)
    ours = DistillTask(student)
    optimizer, _ = optim.build(
        ours, student.args, optim.Plan(epochs=2, steps_per_epoch=3, batch=4, images=12, classes=3)
    )
    reference = deepcopy(ours)
    same = dict(zip(ours.parameters(), reference.parameters(), strict=True))
    groups = [
        group | {"params": [same[parameter] for parameter in group["params"]]} for group in optimizer.param_groups
    ]
    return optimizer, MuSGD(groups, muon=optimizer.muon, sgd=optimizer.sgd), same


def give_gradients(same: dict[Tensor, Tensor]) -> None:
    for mine, other in same.items():
        mine.grad = torch.randn_like(mine)
        other.grad = mine.grad.clone()


def test_moves_are_those_of_ultralytics_optimizer_which_stays_as_it_is() -> None:
    optimizer, reference, same = pair_of_optimizers()
    assert type(optimizer) is GramMuSGD
    before = [mine.detach().clone() for mine in same]
    torch.manual_seed(0)
    for _ in range(3):
        give_gradients(same)
        optimizer.step()
        assert muon.zeropower_via_newtonschulz5 is theirs
        reference.step()
    for start, (mine, other) in zip(before, same.items(), strict=True):
        assert (mine - other).norm() <= 0.03 * (other - start).norm()


def test_ultralytics_optimizer_is_given_back_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Tensor:
        raise RuntimeError("no memory")

    monkeypatch.setattr("distill_trainer.muon.orthogonalised", broken)
    optimizer, _, same = pair_of_optimizers()
    give_gradients(same)
    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step()
    assert muon.zeropower_via_newtonschulz5 is theirs
