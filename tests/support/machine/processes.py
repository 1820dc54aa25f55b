"""Processes that others have started, as /proc lists them."""

import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import torch

from distill_trainer.process.liveness.heartbeat import is_alive

ANONYMOUS_SHARED = "/dev/zero (deleted)"
"""The kernel's name of shared memory that no file stands for."""


def children(pid: int) -> list[int]:
    """Processes that a process has started, from any of its threads; none when it is gone."""
    found: list[int] = []
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            with suppress(FileNotFoundError, ProcessLookupError):  # a thread may end while the others are asked
                found += map(int, (task / "children").read_text().split())
    return found


def ranks_of(launcher: int) -> list[int]:
    """The processes of a launcher's ranks, by rank; none before they are forked."""
    names = {pid: _name(pid) for pid in children(launcher)}
    ranks = {int(name.removeprefix("rank ")): pid for pid, name in names.items() if name.startswith("rank ")}
    return [ranks[rank] for rank in sorted(ranks)]


def _name(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def command(pid: int) -> str:
    """The arguments that a process was started with, apart by blanks; nothing when it is gone or a zombie."""
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    return ""


def wait_until_gone(pids: Iterable[int], seconds: float) -> None:
    """Return when all processes have ended, whether or not their parents have noticed; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while left := [pid for pid in pids if is_alive(pid)]:
        assert time.monotonic() < deadline, f"processes {left} do not end"
        time.sleep(0.02)


def wait_until_stopped(pid: int, seconds: float) -> None:
    """Return when the process has been stopped by a signal; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert time.monotonic() < deadline, f"process {pid} does not stop"
        time.sleep(0.005)


def mapped_file(tensor: torch.Tensor) -> str:
    """The file that this process has mapped where the tensor's memory is; empty for memory of its own."""
    address = tensor.data_ptr()
    for line in Path("/proc/self/maps").read_text().splitlines():
        addresses, _, _, _, _, *name = line.split(maxsplit=5)
        first, end = (int(number, 16) for number in addresses.split("-"))
        if first <= address < end:
            return name[0] if name else ""
    assert not tensor.numel(), "mapped nowhere"
    return ""
