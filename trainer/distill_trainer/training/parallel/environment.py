"""Where this process stands in the gang, and what it computes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from distill_api.constants import Reason
from distill_api.errors import Permanent


@dataclass(frozen=True)
class Environment:
    """One rank: its place among all ranks, and its device."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    node_rank: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this rank writes results and checkpoints."""
        return self.rank == 0

    @property
    def backend(self) -> str:
        """Collectives for the device: nccl between CUDA devices, gloo between CPUs."""
        return "nccl" if self.device.type == "cuda" else "gloo"


def from_torchrun(uses_cuda: bool, environ: Mapping[str, str] = os.environ) -> Environment:
    """Read torchrun's variables; without them this process is the only rank.

    Raises Permanent(NoAccelerator) when the job wants CUDA and this rank has no device of its own.
    """
    local_rank = int(environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu")
    if uses_cuda:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if local_rank >= found:
            raise Permanent(
                Reason.NO_ACCELERATOR,
                f"rank {environ.get('RANK', 0)} needs CUDA device {local_rank} but the container has {found}; "
                "check accelerators.resource and the node's driver, or set device: cpu",
            )
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
    return Environment(
        rank=int(environ.get("RANK", 0)),
        local_rank=local_rank,
        world_size=int(environ.get("WORLD_SIZE", 1)),
        local_world_size=int(environ.get("LOCAL_WORLD_SIZE", 1)),
        node_rank=int(environ.get("GROUP_RANK", 0)),
        device=device,
    )
