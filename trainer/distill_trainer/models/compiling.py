"""Checks that torch.compile works in this container image, for training.compile."""

from __future__ import annotations

import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason


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
