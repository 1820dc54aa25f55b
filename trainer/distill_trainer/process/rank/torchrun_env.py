"""This process's rank, from torchrun's environment variables."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class TorchrunEnv:
    """Rank and world size of this process."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int

    @classmethod
    def from_environ(cls, environ: Mapping[str, str] = os.environ) -> Self:
        """Read torchrun's variables; without them this process is the only rank."""
        return cls(
            rank=int(environ.get("RANK", 0)),
            local_rank=int(environ.get("LOCAL_RANK", 0)),
            world_size=int(environ.get("WORLD_SIZE", 1)),
            local_world_size=int(environ.get("LOCAL_WORLD_SIZE", 1)),
            node_rank=int(environ.get("GROUP_RANK", 0)),
        )

    @property
    def is_main(self) -> bool:
        """Whether this rank writes results and checkpoints."""
        return self.rank == 0
