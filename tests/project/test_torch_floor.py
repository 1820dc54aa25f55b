"""The lowest torch that pyproject.toml allows has everything that the trainer uses of it, by this table.

Another torch takes gigabytes, so none is installed for this, but in a workflow (`TORCH=1 make lowest`): the table says
since when torch has what is newer than 2.6, and the tests say that the trainer uses it, and that the installed torch
still has it. What is new belongs here.
"""

import inspect
import re
import tomllib
from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch._C import _distributed_c10d
from torch.nn.parallel import DistributedDataParallel

from tests.support.machine.python import ROOT


class Needed(NamedTuple):
    """Something of torch that the trainer uses."""

    since: tuple[int, int]
    """The first torch that has it; (2, 6) stands for all before, too."""
    file: str
    """A file of the trainer that uses it."""
    text: str
    """How it is written there."""
    exists: Callable[[], bool]
    """Whether the installed torch has it."""


def has_parameter(function: Callable[..., object], name: str) -> bool:
    return name in inspect.signature(function).parameters


TABLE = [
    Needed(
        (2, 13),
        "training/parallel/collectives.py",
        "forward_sync_buffers=False",
        lambda: has_parameter(DistributedDataParallel.__init__, "forward_sync_buffers"),
    ),
    Needed(
        (2, 6),
        "process/liveness/flight_recorder.py",
        "_dump_nccl_trace_json",
        lambda: hasattr(_distributed_c10d, "_dump_nccl_trace_json"),
    ),
    Needed((2, 6), "training/device/gate.py", "torch._foreach_copy_", lambda: hasattr(torch, "_foreach_copy_")),
    Needed((2, 6), "training/device/gate.py", "torch._foreach_norm", lambda: hasattr(torch, "_foreach_norm")),
]


def floor(package: str) -> tuple[int, ...]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (line,) = (line for line in project["optional-dependencies"]["trainer"] if re.match(rf"{package}\W", line))
    return tuple(map(int, line.removeprefix(f"{package}>=").split(".")))


def test_the_floor_is_the_first_torch_that_has_everything() -> None:
    assert floor("torch") == max(needed.since for needed in TABLE)
    assert floor("torchvision") == (0, floor("torch")[1] + 15)  # the torchvision that was released with it


@pytest.mark.parametrize("needed", TABLE, ids=lambda needed: needed.text)
def test_what_is_in_the_table_is_used_and_exists(needed: Needed) -> None:
    assert needed.text in (ROOT / "trainer/distill_trainer" / needed.file).read_text()
    assert needed.exists() or not torch.distributed.is_nccl_available()
