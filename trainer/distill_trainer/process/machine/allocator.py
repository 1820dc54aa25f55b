"""How the C library gives memory back."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4  # malloc.h of glibc
_LARGEST_INT = 2**31 - 1


def keep_freed_memory() -> bool:
    """Make malloc keep what is freed instead of returning it to the kernel; whether this C library can.

    A training step on CPUs frees and allocates the same large activations again and again. By default each of them is
    mapped anew, and the kernel has to clear its pages: up to a tenth of a step. The most that the process uses at any
    moment stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:  # not glibc
        return False
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, _LARGEST_INT))
