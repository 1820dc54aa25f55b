"""Which channels of a student's activation stand for which of the teacher's, before any is chosen.

Each activation has one selection of the teacher's channels. Activations that are added to each other, or are different
parts of one tensor, are tied here, so that every weight that reads or writes them is sliced alike.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch import Tensor


class NotSliceable(Exception):
    """The student's module cannot be a slice of the teacher's; the message says why."""


class Group:
    """Units (channels, or attention heads) that are selected together: `student` of the teacher's `teacher`."""

    def __init__(self, student: int, teacher: int, *, ordered: bool = False, new: bool = False) -> None:
        """`ordered`: unit i has the same meaning in both models. `new`: the teacher has no counterpart."""
        self.student, self.teacher = student, teacher
        self.ordered, self.new = ordered, new
        self._parent: Group | None = None

    @property
    def root(self) -> Group:
        """The group that decides the selection of all groups tied to it."""
        return self if self._parent is None else self._parent.root

    def tie(self, other: Group) -> None:
        """Select the same units in both groups. Raises NotSliceable if their sizes differ."""
        one, two = self.root, other.root
        if (one.student, one.teacher) != (two.student, two.teacher):
            raise NotSliceable("it adds tensors of different widths")
        if one is not two:
            two._parent = one
            one.ordered |= two.ordered


@dataclass(frozen=True)
class Slot:
    """Consecutive channels of an activation that belong to one group."""

    group: Group
    start: int
    """First channel in the teacher's activation."""
    block: int = 1
    """Channels of a unit."""


@dataclass(frozen=True)
class Channels:
    """The channels of one activation in both models."""

    slots: tuple[Slot, ...]
    teacher: int
    """Channels of the teacher's activation."""

    @property
    def student(self) -> int:
        """Channels of the student's activation."""
        return sum(slot.group.student * slot.block for slot in self.slots)

    @property
    def new(self) -> bool:
        """Whether the teacher has no counterpart of this activation."""
        return all(slot.group.root.new for slot in self.slots)


Choose = Callable[[Group], Tensor]
"""The teacher's units, in order, that the first units of a group's student stand for."""


def channels(student: int, teacher: int, *, ordered: bool = False, new: bool = False) -> Channels:
    """The channels of an activation that is tied to no other yet."""
    return units(Group(student, teacher, ordered=ordered, new=new))


def units(group: Group, block: int = 1) -> Channels:
    """The channels of an activation with `block` channels for each unit of a group."""
    return Channels((Slot(group, 0, block),), group.teacher * block)


def place(parts: Sequence[tuple[Channels, int]], teacher: int) -> Channels:
    """A concatenation: the student's parts, each with its first channel in the teacher's tensor of that width."""
    slots = (Slot(slot.group, start + slot.start, slot.block) for part, start in parts for slot in part.slots)
    return Channels(tuple(slots), teacher)


def concatenate(parts: Sequence[Channels]) -> Channels:
    """A concatenation of the same parts in both models."""
    ends = list(accumulate(part.teacher for part in parts))
    return place(list(zip(parts, [0, *ends[:-1]], strict=True)), ends[-1])


def add(one: Channels, two: Channels) -> Channels:
    """A sum, whose terms are tied. A term without a counterpart ties nothing. Raises NotSliceable."""
    if one.new or two.new:
        return two if one.new else one
    layouts = [[(slot.start, slot.block) for slot in term.slots] for term in (one, two)]
    if layouts[0] != layouts[1]:
        raise NotSliceable("it adds tensors of different layouts")
    for ours, theirs in zip(one.slots, two.slots, strict=True):
        ours.group.tie(theirs.group)
    return one


def positions(wanted: Channels, choose: Choose) -> tuple[Tensor, Tensor]:
    """Indices of the student's channels that have a counterpart, and of the teacher's channels they stand for."""
    ours, theirs, first = [torch.empty(0, dtype=torch.long)], [torch.empty(0, dtype=torch.long)], 0
    for slot in wanted.slots:
        root = slot.group.root
        chosen, inside = choose(root), torch.arange(slot.block)
        ours.append((first + torch.arange(len(chosen))[:, None] * slot.block + inside).flatten())
        theirs.append((slot.start + chosen[:, None] * slot.block + inside).flatten())
        first += root.student * slot.block
    return torch.cat(ours), torch.cat(theirs)
