"""Follows the channels of student and teacher through their modules, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from distill_trainer.models.inherit.channels import Channels, NotSliceable, channels

Rule = Callable[["Trace", str, Any, Any, Any], Channels]
"""Traces one kind of module: (trace, name, student's module, teacher's module, input) -> output."""


@dataclass(frozen=True)
class Slice:
    """A tensor of the student's that is a slice of the teacher's."""

    name: str
    student: Tensor
    teacher: Tensor
    dims: tuple[Channels, ...]
    """Channels of the first dimensions. Later ones, such as a kernel's, are equal in both."""
    output: int = 0
    """The dimension of the outputs."""
    score: Tensor | None = None
    """How much each of the teacher's output channels matters, if the tensor says so."""


@dataclass
class Trace:
    """The slices that were found, and the modules that have none."""

    rules: Mapping[type, Rule]
    slices: list[Slice] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Why, by the module's name."""

    def module(self, name: str, ours: Any, theirs: Any, given: Any) -> Channels:
        """Trace one module. Raises NotSliceable."""
        rule = self.rules.get(type(ours))
        if type(ours) is not type(theirs):
            raise NotSliceable(f"its class is {type(ours).__name__}, the teacher's {type(theirs).__name__}")
        if rule is None:
            raise NotSliceable(f"there is no rule for {type(ours).__name__}")
        return rule(self, name, ours, theirs, given)

    def module_or(
        self, name: str, ours: Any, theirs: Any, given: Any, widths: Callable[[], tuple[int, int]]
    ) -> Channels:
        """Trace one module. If it cannot be sliced, leave it, with an output of these widths and no counterpart."""
        before = len(self.slices)
        try:
            return self.module(name, ours, theirs, given)
        except NotSliceable as why:
            del self.slices[before:]
            self.left[name] = str(why)
            return channels(*widths(), new=True)

    def convolution(self, name: str, ours: Any, theirs: Any, given: Channels, out: Channels | None = None) -> Channels:
        """Trace an nn.Conv2d. `out`: its output, where something is known about that. Raises NotSliceable."""
        _check_alike(ours, theirs, given)
        dims: tuple[Channels, ...]
        if _depthwise(ours) and _depthwise(theirs):
            out, dims = given, (given,)
        elif ours.groups == theirs.groups == 1:
            out = out or channels(ours.out_channels, theirs.out_channels)
            dims = (out, given)
        else:
            raise NotSliceable("its convolution has groups")
        self.slices.append(Slice(f"{name}.weight", ours.weight, theirs.weight, dims))
        self._bias(name, ours, theirs, out)
        return out

    def transposed(self, name: str, ours: Any, theirs: Any, given: Channels) -> Channels:
        """Trace an nn.ConvTranspose2d. Raises NotSliceable."""
        _check_alike(ours, theirs, given)
        if not ours.groups == theirs.groups == 1:
            raise NotSliceable("its convolution has groups")
        out = channels(ours.out_channels, theirs.out_channels)
        score = theirs.weight.detach().square().sum(dim=(0, 2, 3)).sqrt()
        self.slices.append(Slice(f"{name}.weight", ours.weight, theirs.weight, (given, out), 1, score))
        self._bias(name, ours, theirs, out)
        return out

    def batchnorm(self, name: str, ours: nn.BatchNorm2d, theirs: nn.BatchNorm2d, given: Channels) -> None:
        """Trace a BatchNorm, whose scale says how much each channel matters. Raises NotSliceable."""
        if not (isinstance(ours, nn.BatchNorm2d) and isinstance(theirs, nn.BatchNorm2d)):
            raise NotSliceable("one of the models was fused, which removes its BatchNorm")
        for part in ("weight", "bias", "running_mean", "running_var"):
            mine, other = getattr(ours, part), getattr(theirs, part)
            score = other.detach().abs() if part == "weight" else None
            self.slices.append(Slice(f"{name}.{part}", mine, other, (given,), score=score))

    def parameter(self, name: str, ours: Tensor, theirs: Tensor, given: Channels) -> None:
        """Trace a parameter with one value for each channel."""
        self.slices.append(Slice(name, ours, theirs, (given,)))

    def whole(self, name: str, ours: nn.Module, theirs: nn.Module) -> None:
        """Trace a module whose parameters do not depend on the model's width."""
        other = dict(theirs.named_parameters())
        for part, mine in ours.named_parameters():
            if part not in other or other[part].shape != mine.shape:
                self.left[f"{name}.{part}"] = "the teacher's has another shape"
                continue
            self.slices.append(Slice(f"{name}.{part}", mine, other[part], ()))

    def _bias(self, name: str, ours: Any, theirs: Any, out: Channels) -> None:
        if ours.bias is not None and theirs.bias is not None:
            self.slices.append(Slice(f"{name}.bias", ours.bias, theirs.bias, (out,)))


def _check_alike(ours: Any, theirs: Any, given: Channels) -> None:
    if (ours.in_channels, theirs.in_channels) != (given.student, given.teacher):
        raise NotSliceable("its input has another width than the layers before it give")
    if (ours.kernel_size, ours.stride) != (theirs.kernel_size, theirs.stride):
        raise NotSliceable("its kernel or stride differs from the teacher's")


def _depthwise(convolution: Any) -> bool:
    return bool(1 < convolution.groups == convolution.in_channels == convolution.out_channels)
