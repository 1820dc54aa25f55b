"""torch.compile for training.compile: checks that it works in this container image, and keeps what it makes."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason

log = logging.getLogger(__name__)

CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def keep_compiled(folder: Path) -> None:
    """Let torch.compile keep its results in `folder`, on the checkpoints volume, so that later attempts, on other nodes
    too, find them. Call this before the first compilation. Leaves a folder alone that the pod's template sets, and does
    nothing if the volume cannot hold programs.
    """
    if CACHE_VARIABLE in os.environ:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        runs_programs = not os.statvfs(folder).f_flag & os.ST_NOEXEC
    except OSError as error:
        log.warning("cannot keep compiled models in %s (%s): every attempt compiles anew", folder, error)
        return
    if runs_programs:
        os.environ[CACHE_VARIABLE] = str(folder)
    else:
        log.warning("%s is mounted noexec, so it cannot keep compiled models: every attempt compiles anew", folder)


def check_compiler(device: torch.device) -> None:
    """Compile a small function for `device`. Raises Permanent(ConfigInvalid) if that fails.

    torch.compile generates C++ (CPUs) or Triton kernels (CUDA); both need a C++ compiler and Python's headers.
    """
    compiled = torch.compile(lambda values: values.sin() + 1)
    try:
        compiled(torch.ones(64, device=device))
    except (RuntimeError, ImportError, OSError, AttributeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"training.compile is true, but torch.compile does not work in this image ({line[:200]}); use an image "
            "with a C++ compiler and Python's headers (Debian: g++ and python3-dev), or set training.compile: false",
        ) from error
