"""MuSGD with less to multiply on CPUs: the same bits without the rows of zeros."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from ultralytics.optim import MuSGD, muon

_orthogonalised_with_padding = muon.zeropower_via_newtonschulz5


class UnpaddedMuSGD(MuSGD):
    """Ultralytics' MuSGD, which pads the matrices of a model with zero rows to multiply many of them in one call.

    That pays on a GPU. On a CPU the rows of zeros cost what other rows cost: half of the optimizer's time.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One move, bitwise that of MuSGD."""
        muon.zeropower_via_newtonschulz5 = orthogonalised  # for this call: nobody else's MuSGD changes
        try:
            return super().step(closure)
        finally:
            muon.zeropower_via_newtonschulz5 = _orthogonalised_with_padding


def orthogonalised(matrices: Tensor, eps: float = 1e-7) -> Tensor:
    """Newton and Schulz's iteration on each of `matrices` [n, rows, columns], whose last rows may be zero: [n, rows,
    columns] in bf16, bitwise what Ultralytics computes of all of them together.
    """
    rows, columns = matrices.shape[-2:]
    # Rows beyond columns decide which of the two products of a matrix with itself is formed, and rounds differently.
    at_least = columns + 1 if rows > columns else 1
    by_rows: dict[int, list[int]] = defaultdict(list)
    for number, filled in enumerate(matrices.any(dim=-1).tolist()):
        by_rows[max(at_least, rows - filled[::-1].index(True) if any(filled) else 0)].append(number)
    result = torch.zeros_like(matrices, dtype=torch.bfloat16)
    for count, numbers in by_rows.items():
        result[numbers, :count] = _orthogonalised_with_padding(matrices[numbers, :count], eps)
    return result
