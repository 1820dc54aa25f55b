"""MuSGD's step on CPUs: matrices are not padded, and each rank iterates on a share of them. The bits are Ultralytics'.

The ranks' gradients are the same by then, so what one of them iterates to, another one need not. What is sent instead,
in bf16, is half as much as the gradients were.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from ultralytics.optim import muon
from ultralytics.optim.muon import MuSGD

from distill_trainer.training.parallel.collectives import broadcast_async
from distill_trainer.training.parallel.environment import Environment


def step(optimizer: Optimizer, environment: Environment) -> None:
    """`optimizer.step()`, with the same bits. A collective with MuSGD on CPUs, for which every rank must have the same
    gradients and momenta.
    """
    if not isinstance(optimizer, MuSGD) or environment.device.type != "cpu":
        optimizer.step()
        return
    parts = [part for group in optimizer.param_groups for part in _parts(group)]
    if environment.world_size == 1 or not optimizer.state:  # whose momenta are made in the order of the groups
        _step(optimizer, parts)
        return
    shared = _share([part for part in parts if part.is_uniform], environment.world_size)
    mine: list[Tensor] = []
    _step(optimizer, [part for part in parts if not part.is_uniform])
    with _iteration(lambda matrices: _kept(mine, _iterate(matrices))):
        _step(optimizer, shared[environment.rank])
    theirs = _exchange(mine, shared, environment)
    with _iteration(lambda matrices: next(theirs).view(matrices.shape)):
        _step(optimizer, [part for rank, its in enumerate(shared) if rank != environment.rank for part in its])


@dataclass(frozen=True)
class _Part:
    """Parameters that MuSGD takes in one call, with the settings of their group."""

    group: dict[str, Any]
    parameters: list[nn.Parameter]

    @property
    def is_uniform(self) -> bool:
        """Whether MuSGD iterates on these as one stack of matrices of one shape."""
        return bool(self.group["use_muon"]) and len({_shape(parameter) for parameter in self.parameters}) == 1

    @property
    def elements(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)

    @property
    def cost(self) -> int:
        """Multiplications of an iteration: two products of X with a square matrix of its shorter side, and one of that
        with itself.
        """
        height, width = _shape(self.parameters[0])
        short = min(height, width)
        return len(self.parameters) * short * short * (2 * max(height, width) + short)


def _shape(parameter: nn.Parameter) -> tuple[int, int]:
    """Height and width of the matrix that MuSGD makes of a parameter."""
    return len(parameter), parameter.numel() // len(parameter)


def _parts(group: dict[str, Any]) -> list[_Part]:
    """The parameters of a group with gradients, in parts that need no padding.

    MuSGD pads matrices of one width with zero rows, to multiply them all in one call. That saves launches on GPUs, and
    it is more than half of the arithmetic. Those of one width stay together if one of them is taller than wide: MuSGD
    transposes all that are padded to its height, and that rounds differently.
    """
    parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
    if not group["use_muon"]:
        return [_Part(group, parameters)]
    tallest: dict[int, int] = defaultdict(int)
    for height, width in map(_shape, parameters):
        tallest[width] = max(tallest[width], height)
    parts = defaultdict(list)
    for parameter in parameters:
        height, width = _shape(parameter)
        parts[width, height if tallest[width] <= width else None].append(parameter)
    return [_Part(group, part) for part in parts.values()]


def _share(parts: Iterable[_Part], ranks: int) -> list[list[_Part]]:
    """The parts of each rank: each next costly one goes to the rank with the least work."""
    shares: list[list[_Part]] = [[] for _ in range(ranks)]
    work = [0] * ranks
    for part in sorted(parts, key=lambda part: -part.cost):
        rank = work.index(min(work))
        shares[rank].append(part)
        work[rank] += part.cost
    return shares


def _step(optimizer: Optimizer, parts: Sequence[_Part]) -> None:
    groups = optimizer.param_groups
    optimizer.param_groups = [part.group | {"params": part.parameters} for part in parts]
    try:
        optimizer.step()
    finally:
        optimizer.param_groups = groups


_iterate = muon.zeropower_via_newtonschulz5


@contextmanager
def _iteration(replacement: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Inside, MuSGD asks `replacement` for what it iterates to."""
    muon.zeropower_via_newtonschulz5 = replacement
    try:
        yield
    finally:
        muon.zeropower_via_newtonschulz5 = _iterate


def _kept(results: list[Tensor], result: Tensor) -> Tensor:
    results.append(result)
    return result


def _exchange(mine: list[Tensor], shared: list[list[_Part]], environment: Environment) -> Iterator[Tensor]:
    """Send this rank's results to all. Returns the other ranks', in the order of ranks and of their parts."""
    sizes = [[part.elements for part in its] for its in shared]
    flat = [torch.empty(sum(of_rank), dtype=torch.bfloat16) for of_rank in sizes]
    if mine:
        torch.cat([result.flatten() for result in mine], out=flat[environment.rank])
    works = [broadcast_async(results, rank) for rank, results in enumerate(flat) if len(results)]
    for work in works:
        work.wait()
    received = [results.split(sizes[rank]) for rank, results in enumerate(flat) if rank != environment.rank]
    return itertools.chain(*received)
