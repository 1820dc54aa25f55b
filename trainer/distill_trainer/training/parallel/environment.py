"""This process's rank and device."""

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
    """Rank, world size and device of this process."""

    device: torch.device

    @property
    def backend(self) -> str:
        """torch.distributed backend: nccl on CUDA, gloo on CPUs."""
        return "nccl" if self.device.type == "cuda" else "gloo"


def from_torchrun(uses_cuda: bool, environ: Mapping[str, str] = os.environ) -> Environment:
    """Read torchrun's variables (without them this process is the only rank) and select the device.

    Raises Permanent(NoAccelerator) if the job uses CUDA and there is no device for this rank.
    """
    env = TorchrunEnv.from_environ(environ)
    device = torch.device("cpu")
    if uses_cuda:
        found = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if env.local_rank >= found:
            raise Permanent(
                Reason.NO_ACCELERATOR,
                f"rank {env.rank} needs CUDA device {env.local_rank}, but the container has {found} CUDA devices"
                f"{_why_none() if found == 0 else ''}; check accelerators.resource and the node's driver, or set "
                "device: cpu",
            )
        device = torch.device("cuda", env.local_rank)
        torch.cuda.set_device(device)
    return Environment(**vars(env), device=device)


def _why_none() -> str:
    """What CUDA says of itself where PyTorch finds no device, such as that the driver is too old."""
    try:
        torch.cuda.init()
    except Exception as error:  # noqa: BLE001  it is only a detail of an error
        return f" ({' '.join(str(error).split())})"
    return ""
