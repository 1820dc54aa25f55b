"""What teacher and student compute on images: how the teacher's channels vary together, and weights that make up for
the channels that a student does not have.

Both are known from pruning: choosing columns that span the others (pivoted Cholesky), and least squares from a layer's
inputs to the outputs that the larger model has there (He et al., ICCV 2017, arXiv:1707.06168).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle
from ultralytics.nn.modules.conv import Conv

from distill_trainer.models.inherit.channels import Choose, positions
from distill_trainer.models.inherit.trace import Slice

_LOCATIONS = 16384
"""Most locations of a layer's output that are looked at, over all images."""
_RIDGE = 0.01
"""How strongly fitted weights are held at the copied ones, as a part of the mean square of a layer's inputs."""
_LEAST_SPREAD = 1e-3
"""Least variance of a fitted channel, as a part of its teacher's: nothing is divided by nothing."""
_TINY = 1e-12
_LAYERS = (nn.Conv2d, nn.ConvTranspose2d)
Layer = nn.Conv2d | nn.ConvTranspose2d
Progress = Callable[[], None]
"""Is called after each layer, of which one may take seconds."""


def no_progress() -> None:
    """Nobody waits."""


@dataclass(frozen=True)
class Locations:
    """Some locations of a layer's output, the same for every output of its size."""

    image: Tensor
    row: Tensor
    column: Tensor

    @classmethod
    def of(cls, output: Tensor) -> Locations:
        """All of an output [N, C, H, W], or _LOCATIONS of them that a fixed seed draws."""
        images, _, height, width = output.shape
        count = images * height * width
        drawn = torch.arange(count)
        if count > _LOCATIONS:
            drawn = torch.randint(count, (_LOCATIONS,), generator=torch.Generator().manual_seed(0))
        drawn = drawn.to(output.device)
        return cls(drawn // (height * width), drawn // width % height, drawn % width)

    def read(self, output: Tensor) -> Tensor:
        """[N, C, H, W] -> [locations, C]."""
        return output[self.image, :, self.row, self.column]

    def patches(self, convolution: nn.Conv2d, given: Tensor) -> Tensor:
        """What a convolution reads of its input [N, C, H, W] for these outputs: [locations, C, kernel's cells]."""
        (down, right), (below, beside) = convolution.stride, convolution.dilation
        top, left = (int(side) for side in convolution.padding)
        padded = functional.pad(given, (left, left, top, top))
        cells = product(range(convolution.kernel_size[0]), range(convolution.kernel_size[1]))
        return torch.stack(
            [padded[self.image, :, self.row * down + y * below, self.column * right + x * beside] for y, x in cells],
            dim=2,
        )


@torch.no_grad()
def covariances(
    slices: Sequence[Slice], teacher: Any, images: Tensor, progress: Progress = no_progress
) -> dict[int, Tensor]:
    """By the id of a group: how the activations of its units vary together on `images` [N, C, H, W], in [0, 1].

    Summed over the layers that the group is the output of, each with mean variance 1.
    """
    layers: dict[int, nn.Module] = {
        id(layer.weight): layer for layer in teacher.modules() if isinstance(layer, _LAYERS)
    }
    layers |= {id(layer.conv.weight): layer for layer in teacher.modules() if isinstance(layer, Conv)}  # activated
    found: dict[int, Tensor] = {}

    def watch(part: Slice) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            values = Locations.of(output).read(output.float())
            values = values - values.mean(0)
            for slot in part.dims[part.output].slots:
                root = slot.group.root
                mine = values[:, slot.start : slot.start + root.teacher * slot.block].unflatten(1, (root.teacher, -1))
                covariance = torch.einsum("lub,lvb->uv", mine, mine).double().cpu()
                found[id(root)] = found.get(id(root), 0) + covariance / covariance.diagonal().mean().clamp_min(_TINY)
            progress()

        return hook

    watched = [(layers[id(part.teacher)], part) for part in slices if part.dims and id(part.teacher) in layers]
    with _as_in_training(teacher), _hooks(layer.register_forward_hook(watch(part)) for layer, part in watched):
        teacher(images)
    return found


@dataclass(frozen=True)
class Fitted:
    """How much of the variance of the teacher's layers the student's explain, from their own inputs; means."""

    copied: float
    """With the weights as they were copied."""
    fitted: float
    """With those that were fitted."""
    images: int


@torch.no_grad()
def fit(
    slices: Sequence[Slice],
    choose: Choose,
    student: Any,
    teacher: Any,
    images: Tensor,
    progress: Progress = no_progress,
) -> Fitted:
    """Fit the student's convolutions one after another, in place, to what the teacher's give on `images` [N, C, H, W].

    Each is fitted by least squares from the inputs that the convolutions before it give, which are fitted already, to
    the outputs of the teacher's channels that its own stand for. What these then differ by in mean and variance, the
    running statistics of the BatchNorm after them follow.
    """
    ours, theirs = (
        {id(layer.weight): layer for layer in model.modules() if isinstance(layer, _LAYERS) and _can_be_fitted(layer)}
        for model in (student, teacher)
    )
    pairs = [
        (ours[id(part.student)], theirs[id(part.teacher)], *positions(part.dims[part.output], choose))
        for part in slices
        if part.dims and id(part.student) in ours and id(part.teacher) in theirs
    ]
    norms = {layer.conv: layer.bn for layer in student.modules() if isinstance(layer, Conv)}
    wanted: dict[nn.Module, tuple[Locations, Tensor]] = {}
    explained: list[tuple[float, float]] = []

    def keep(layer: Layer, channels: Tensor) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(_: nn.Module, __: Any, output: Tensor) -> None:
            output = output[:, channels.to(output.device)]
            if isinstance(layer, nn.ConvTranspose2d):  # cells of one input's location as channels
                output = functional.pixel_unshuffle(output, int(layer.stride[0]))
            locations = Locations.of(output)
            wanted[layer] = locations, locations.read(output)
            progress()

        return hook

    def solve(channels: Tensor) -> Callable[[Any, Any], None]:
        def hook(layer: Layer, given: tuple[Tensor]) -> None:
            locations, targets = wanted.pop(layer)
            explained.append(_fit_layer(layer, norms.get(layer), channels, locations, given[0], targets))
            progress()

        return hook

    with _as_in_training(teacher), _hooks(two.register_forward_hook(keep(one, its)) for one, two, _, its in pairs):
        teacher(images)
    solvers = [one.register_forward_pre_hook(solve(mine)) for one, _, mine, _ in pairs if len(mine)]
    with _as_in_training(student), _hooks(solvers):
        student(images)
    copied, fitted = zip(*explained, strict=True) if explained else ((0.0,), (0.0,))
    return Fitted(fmean(copied), fmean(fitted), len(images))


def _can_be_fitted(layer: Layer) -> bool:
    """Whether each output depends linearly on one patch of inputs: with a transposed one, on one location."""
    alone = layer.kernel_size == layer.stride and not any(layer.padding)
    return isinstance(layer, nn.Conv2d) or (alone and len(set(layer.stride)) == 1)


def _fit_layer(
    layer: Layer, norm: nn.Module | None, channels: Tensor, locations: Locations, given: Tensor, targets: Tensor
) -> tuple[float, float]:
    """Fit the weights of some output `channels` [O] to `targets` [L, O x cells]; cells of a transposed one, else 1.

    Returns the parts of the outputs' variance that copied and fitted weights explain, means over channels.
    """
    channels = channels.to(given.device)
    if isinstance(layer, nn.ConvTranspose2d):
        inputs, outputs = locations.read(given).unsqueeze(0), targets.unsqueeze(0)
        found = _least_squares(layer.weight[:, channels].flatten(1).unsqueeze(0), inputs, outputs)
        layer.weight[:, channels] = found.weight[0].unflatten(1, (len(channels), *layer.kernel_size))
    elif layer.groups > 1:  # depthwise: each output has inputs of its own
        inputs, outputs = locations.patches(layer, given)[:, channels].transpose(0, 1), targets.T.unsqueeze(2)
        found = _least_squares(layer.weight[channels].flatten(1).unsqueeze(2), inputs, outputs)
        layer.weight[channels] = found.weight.view_as(layer.weight[channels])
    else:
        inputs, outputs = locations.patches(layer, given).flatten(1).unsqueeze(0), targets.unsqueeze(0)
        found = _least_squares(layer.weight[channels].flatten(1).T.unsqueeze(0), inputs, outputs)
        layer.weight[channels] = found.weight[0].T.reshape_as(layer.weight[channels])
    if layer.bias is not None:
        layer.bias[channels] = -found.offset.view(len(channels), -1).mean(1)
    if isinstance(norm, nn.BatchNorm2d) and norm.running_mean is not None and norm.running_var is not None:
        norm.running_mean[channels] += found.offset
        norm.running_var[channels] *= found.spread.clamp_min(_LEAST_SPREAD)
    return found.explained


class _Solution(NamedTuple):
    weight: Tensor
    """[G, I, O]"""
    offset: Tensor
    """[G x O]: what the weights give in the mean, less the mean of the targets."""
    spread: Tensor
    """[G x O]: variance of what the weights give, as a part of the targets'."""
    explained: tuple[float, float]
    """Part of the targets' variance, by the weights that were given and by these."""


def _least_squares(weight: Tensor, inputs: Tensor, targets: Tensor) -> _Solution:
    """The weights nearest to `weight` [G, I, O] that lead from `inputs` [G, L, I] to `targets` [G, L, O], for each of G
    groups, up to constants.
    """
    mean, centre = inputs.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    inputs, targets = inputs - mean, targets - centre
    before = targets - inputs @ weight
    gram = (inputs.mT @ inputs).double()
    diagonal = gram.diagonal(dim1=1, dim2=2)
    diagonal += (_RIDGE * diagonal.mean(1, keepdim=True)).clamp_min(_TINY)
    change = torch.cholesky_solve((inputs.mT @ before).double(), torch.linalg.cholesky(gram)).to(weight)
    after, found = before - inputs @ change, weight + change
    variance = targets.square().sum(1).clamp_min(_TINY)
    first, second = (float((1 - left.square().sum(1) / variance).clamp_min(0).mean()) for left in (before, after))
    spread = (targets - after).square().sum(1) / variance
    return _Solution(found, (mean @ found - centre).flatten(), spread.flatten(), (first, second))


@contextmanager
def _as_in_training(model: nn.Module) -> Iterator[None]:
    """All branches of the head and nothing decoded, as in training, but BatchNorms with their running statistics."""
    modes = {part: part.training for part in model.modules()}
    model.train()
    for part in modes:
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
    try:
        yield
    finally:
        for part, training in modes.items():
            part.training = training


@contextmanager
def _hooks(handles: Iterator[RemovableHandle] | Sequence[RemovableHandle]) -> Iterator[None]:
    registered = list(handles)
    try:
        yield
    finally:
        for handle in registered:
            handle.remove()
