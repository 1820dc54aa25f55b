"""Read directories that change while they are read: control groups, /proc, a runtime's state.

What vanishes between being listed and being used counts as not there; every other error is raised.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The last two are what /proc and cgroup file systems answer of a file that is still open when its owner ends.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ENODEV)


@contextmanager
def vanishing() -> Iterator[None]:
    """Leave the block where a file or directory that it uses is gone."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def entries(directory: Path) -> list[Path]:
    """What is in ``directory``, by name; empty when it is gone."""
    with vanishing():
        return sorted(directory / name for name in os.listdir(directory))
    return []


def directories(directory: Path) -> list[Path]:
    """The directories in ``directory``, by name; links are none."""
    with vanishing(), os.scandir(directory) as found:
        return sorted(Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
    return []


def walk(directory: Path) -> Iterator[Path]:
    """``directory`` and all directories below it, the leaves first."""
    for child in directories(directory):
        yield from walk(child)
    yield directory


def read(file: Path) -> bytes:
    """What is in ``file``; empty when it is gone."""
    with vanishing():
        return file.read_bytes()
    return b""
