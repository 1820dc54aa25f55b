"""What Linux lets a process ask for itself, and Python does not know: prctl(2)."""

import ctypes
import os

PR_SET_PDEATHSIG = 1
"""The signal that the kernel sends this process when its parent dies."""
PR_SET_CHILD_SUBREAPER = 36
"""Whether processes below this one become its children when their own parent dies."""


def prctl(option: int, value: int) -> None:
    """Set one option of this process. Raises OSError."""
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}, {value}): {os.strerror(number)}")
