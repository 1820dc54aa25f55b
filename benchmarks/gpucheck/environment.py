"""The machine: driver, CUDA, NCCL, GPUs, memory, limits and topology."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess

import torch

from benchmarks.gpucheck.findings import Findings, Place
from distill_trainer.process.machine.cpus import available_cpus

_QUERY = "index,name,driver_version,memory.total,memory.used,pcie.link.gen.current,pcie.link.width.current"
SHM_PER_GPU = 1 << 30
"""Bytes of /dev/shm that a pod has for each GPU. NCCL connects those through it that have no direct connection."""


def check(place: Place, found: Findings) -> None:
    """Record what the machine has, and compute a product on each GPU."""
    found.figure("torch", torch.__version__)
    found.figure("cpus", available_cpus())
    found.figure("system", platform.platform())
    found.figure("memory GiB", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30)
    volume = os.statvfs("/dev/shm")
    shm = volume.f_frsize * volume.f_blocks
    found.figure("shm GiB", shm / 2**30)
    limit = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    found.figure("memlock", "unlimited" if limit == resource.RLIM_INFINITY else f"{limit >> 10} KiB")
    found.figure("compiler", shutil.which("gcc") or shutil.which("cc") or "none: training.compile cannot work")
    if place.cuda:
        _gpus(place, found)
        found.expect(
            shm >= SHM_PER_GPU * place.gpus,
            f"/dev/shm has {shm / 2**30:.1f} GiB for {place.gpus} GPUs: raise it to 1 GiB a GPU, for NCCL",
        )


def _gpus(place: Place, found: Findings) -> None:
    found.figure("cuda", torch.version.cuda)
    found.figure("cudnn", torch.backends.cudnn.version())
    found.figure("nccl", ".".join(map(str, torch.cuda.nccl.version())))
    found.figure("gpus", place.gpus)
    found.expect(place.gpus > 0, "PyTorch finds no GPU")
    found.figure("nvidia-smi", _told(["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader"]))
    found.figure("topology", _told(["nvidia-smi", "topo", "-m"]))
    for index in range(place.gpus):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        found.figure(
            f"gpu {index}",
            f"{properties.name}, sm_{properties.major}{properties.minor}, {total / 2**30:.0f} GiB of which "
            f"{free / 2**30:.0f} are free",
        )
        ones = torch.ones(256, 256, device=f"cuda:{index}")
        found.expect(bool((ones @ ones == 256).all()), f"GPU {index} computes a wrong product")
        found.expect(
            free > total / 2, f"GPU {index} has only {free / 2**30:.0f} GiB free: another program uses it, end it"
        )


def _told(command: list[str]) -> list[str]:
    """The lines that a command prints; the error if it cannot run."""
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=15, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"{command[0]}: {error}"]
    return (result.stdout or result.stderr).rstrip().splitlines()
