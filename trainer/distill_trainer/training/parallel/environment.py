"""Where this rank stands in the gang, and what it computes on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.process.rank.torchrun_env import TorchrunEnv


@dataclass(frozen=True)
class Environment(TorchrunEnv):
    """One rank: its place among all ranks, and its device."""

    device: torch.device

    @property
    def backend(self) -> str:
        """Collectives for the device: nccl between CUDA devices, gloo between CPUs."""
        return "nccl" if self.device.type == "cuda" else "gloo"


def from_torchrun(uses_cuda: bool, environ: Mapping[str, str] = os.environ) -> Environment:
    """Read torchrun's variables; without them this process is the only rank.

    Raises Permanent(NoAccelerator) when the job wants CUDA and this rank has no device of its own.
    """
    env = TorchrunEnv.from_environ(environ)
    device = torch.device("cpu")
    if uses_cuda:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if env.local_rank >= found:
            raise Permanent(
                Reason.NO_ACCELERATOR,
                f"rank {env.rank} needs CUDA device {env.local_rank} but the container has {found}; "
                "check accelerators.resource and the node's driver, or set device: cpu",
            )
        device = torch.device("cuda", env.local_rank)
        torch.cuda.set_device(device)
    return Environment(**vars(env), device=device)
