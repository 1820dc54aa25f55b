"""Processes with the variables that torchrun gives to the ranks of one node."""

import subprocess
from collections.abc import Iterable

from tests.support.machine.python import command, environment


def variables(rank: int, world_size: int, port: int) -> dict[str, str]:
    """Those of one rank, whose gang meets at `port` of this machine."""
    return {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "GROUP_RANK": "0",
        "WORLD_SIZE": str(world_size),
        "LOCAL_WORLD_SIZE": str(world_size),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "OMP_NUM_THREADS": "1",
    }


def start_ranks(module: str, arguments: Iterable[Iterable[object]], port: int) -> list["subprocess.Popen[bytes]"]:
    """Start one rank of `module` with each of the lists of arguments; they meet at `port` of this machine."""
    given = [list(of_rank) for of_rank in arguments]
    return [
        subprocess.Popen(command(module, *of_rank), env=environment(**variables(rank, len(given), port)))
        for rank, of_rank in enumerate(given)
    ]
