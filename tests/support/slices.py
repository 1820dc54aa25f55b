"""Pairs of models for tests of student.init: inherit."""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.block import C2PSA, A2C2f, C2f
from ultralytics.nn.tasks import parse_model, yaml_model_load

from distill_trainer.models.inherit.blocks import counterparts
from distill_trainer.models.inherit.channels import Group, positions
from distill_trainer.models.inherit.weights import Inheritance


class Shapes(nn.Module):
    """An Ultralytics architecture without values: only its modules and the shapes of their weights."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.yaml = yaml_model_load(name)
        with torch.device("meta"):
            self.model = parse_model(deepcopy(self.yaml), ch=3, verbose=False)[0]


@torch.no_grad()
def randomize(model: nn.Module, seed: int) -> None:
    """BatchNorm scales and shifts that are neither 1 and 0 nor alike, and running statistics that fit."""
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.weight.copy_(0.5 + torch.rand(norm.weight.shape, generator=generator))
        norm.bias.normal_(0, 0.2, generator=generator)
        norm.momentum = 1.0
    model.train()
    model(torch.rand(4, 3, 64, 64, generator=generator))
    model.eval()


@torch.no_grad()
def deaden(student: nn.Module, teacher: nn.Module, seed: int) -> None:
    """Switch off what the student has no room for, chosen at random: channels, attention heads and repeated blocks.

    A channel is off when what makes it has the scale 0 and the shift 0. Nothing else of the teacher changes.
    """
    generator = torch.Generator().manual_seed(seed)
    plan = Inheritance.of(student, teacher)
    kept: dict[int, Tensor] = {}

    def choose(group: Group) -> Tensor:
        root = group.root
        alive = 0 if root.new else min(root.student, root.teacher)
        return kept.setdefault(id(root), torch.randperm(root.teacher, generator=generator)[:alive].sort().values)

    for part in plan.trace.slices:
        makes = part.score is not None or part.name.endswith(("bn.bias", "upsample.bias"))
        if not makes or part.dims[part.output].slots[0].group.root.ordered:
            continue
        off = torch.ones(part.teacher.shape[part.output], dtype=torch.bool)
        off[positions(part.dims[part.output], choose)[1]] = False
        part.teacher.index_fill_(part.output, off.nonzero()[:, 0], 0)
    for name, ours, theirs in _alike(student, teacher, (C2f, A2C2f)):
        before = 2 if isinstance(theirs, C2f) else 1
        width = theirs.cv2.conv.in_channels // (before + len(theirs.m))
        matched = counterparts(len(ours.m), len(theirs.m))
        for number, block in enumerate(theirs.m):
            if number not in matched:
                _pass_on(block.cv2.bn)
            if number not in matched or f"{name}.m.{matched.index(number)}" in plan.trace.left:
                theirs.cv2.conv.weight[:, (before + number) * width :][:, :width] = 0
    for _, ours, theirs in _alike(student, teacher, (C2PSA,)):
        for number, block in enumerate(theirs.m):
            if number not in counterparts(len(ours.m), len(theirs.m)):
                _pass_on(block.attn.proj.bn, block.ffn[1].bn)


def _alike(student: nn.Module, teacher: nn.Module, classes: tuple[type, ...]) -> Iterator[tuple[str, Any, Any]]:
    ours = dict(student.named_modules())
    for name, theirs in teacher.named_modules():
        if isinstance(theirs, classes) and name in ours:
            yield name, ours[name], theirs


def _pass_on(*norms: nn.BatchNorm2d) -> None:
    for norm in norms:
        norm.weight.zero_()
        norm.bias.zero_()


@torch.no_grad()
def outputs(model: Any, images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """All tensors that the head gives, and the features that it gets, by level."""
    features: list[Tensor] = []
    hook = model.model[-1].register_forward_pre_hook(lambda _, inputs: features.extend(inputs[0]))
    found = model.eval()(images)
    hook.remove()
    return list(_tensors(found)), features


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for name in sorted(value.keys() - {"feats"}):
            yield from _tensors(value[name])
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _tensors(part)
