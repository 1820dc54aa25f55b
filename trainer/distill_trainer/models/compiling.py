"""training.compile: whether this image can compile at all."""

from __future__ import annotations

import torch

from distill_api.errors import Permanent
from distill_api.reasons import Reason


def check_compiler(device: torch.device) -> None:
    """Compile something small for `device`. Raises Permanent(ConfigInvalid) when the image has no compiler.

    torch.compile makes C++ (CPUs) or Triton kernels (CUDA) and needs a C++ compiler and Python's headers for both.
    """
    compiled = torch.compile(lambda values: values.sin() + 1)
    try:
        compiled(torch.ones(64, device=device))
    except (RuntimeError, ImportError, OSError, AttributeError) as error:
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"training.compile is true but nothing can be compiled in this image ({line[:200]}); give an image that "
            "has a C++ compiler and Python's headers (Debian: g++ and python3-dev), or set training.compile: false",
        ) from error
