"""MuSGD for CPUs: the same iteration with a third of the arithmetic, and in fp32."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor
from ultralytics.optim import MuSGD, muon

_orthogonalised_in_bf16 = muon.zeropower_via_newtonschulz5
_ITERATIONS = 5
_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315


class GramMuSGD(MuSGD):
    """Ultralytics' MuSGD with `orthogonalised` in place of its iteration in bf16, which pays on a GPU.

    CPUs without AMX multiply bf16 at half of the rate of fp32, and Ultralytics pads the matrices of a model with rows
    of zeros, which cost a CPU what other rows cost.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One move."""
        muon.zeropower_via_newtonschulz5 = orthogonalised  # for this call: nobody else's MuSGD changes
        try:
            return super().step(closure)
        finally:
            muon.zeropower_via_newtonschulz5 = _orthogonalised_in_bf16


def orthogonalised(matrices: Tensor, eps: float = 1e-7) -> Tensor:
    """Five of Muon's Newton-Schulz iterations on each of `matrices` [n, rows, columns], whose last rows may be zero.

    Equal to ultralytics.optim.muon.zeropower_via_newtonschulz5 but for rounding, which there is to bf16: a hundredth
    of a result. Returns fp32, [n, rows, columns].
    """
    result = torch.zeros_like(matrices)
    by_rows: dict[int, list[int]] = defaultdict(list)
    for number, filled in enumerate(matrices.any(dim=-1).tolist()):
        by_rows[len(filled) - filled[::-1].index(True) if any(filled) else 1].append(number)
    for rows, numbers in by_rows.items():
        part = matrices[numbers, :rows].float()
        part = part / (part.norm(dim=(-2, -1), keepdim=True) + eps)
        tall = rows > part.shape[-1]
        wide = part.mT if tall else part
        iterated = _polynomial_of(wide @ wide.mT) @ wide
        result[numbers, :rows] = iterated.mT if tall else iterated
    return result


def _polynomial_of(gram: Tensor) -> Tensor:
    """The matrix P for which P X is the iterations' result, from X's Gram matrix [n, rows, rows] alone.

    Every iteration multiplies X by a polynomial p of its Gram matrix, which becomes p G p: none needs X itself. Known
    as Gram Newton-Schulz (Dao AI Lab, 2026), whose restarts only half precision needs.
    """
    product = factor = _factor(gram)
    for _ in range(_ITERATIONS - 1):
        gram = factor @ gram @ factor
        factor = _factor(gram)
        product = factor @ product
    return product


def _factor(gram: Tensor) -> Tensor:
    factor = torch.baddbmm(gram, gram, gram, beta=_CUBIC, alpha=_QUINTIC)
    factor.diagonal(dim1=-2, dim2=-1).add_(_LINEAR)
    return factor
