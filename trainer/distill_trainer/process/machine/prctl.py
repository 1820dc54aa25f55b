"""prctl(2), which Python does not provide."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
"""Signal that the kernel sends to this process when its parent dies."""
PR_SET_CHILD_SUBREAPER = 36
"""Whether descendants become children of this process when their own parent dies."""


def prctl(option: int, value: int) -> None:
    """Set one option of this process. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
