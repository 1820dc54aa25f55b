"""Reads directories that change meanwhile: control groups, /proc, a runtime's state.

Files that disappear between being listed and being read are treated as missing; all other errors are raised.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# The last two are errors of /proc and cgroup file systems for an open file whose owner has ended.
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESRCH, errno.ENODEV)


@contextmanager
def vanishing() -> Iterator[None]:
    """Ignore errors of files and directories that have disappeared."""
    try:
        yield
    except OSError as error:
        if error.errno not in _GONE:
            raise


def entries(directory: Path) -> list[Path]:
    """Entries of ``directory``, sorted by name; empty if it does not exist."""
    with vanishing():
        return sorted(directory / name for name in os.listdir(directory))
    return []


def directories(directory: Path) -> list[Path]:
    """Directories in ``directory``, sorted by name, without symbolic links."""
    with vanishing(), os.scandir(directory) as found:
        return sorted(Path(entry.path) for entry in found if entry.is_dir(follow_symlinks=False))
    return []


def walk(directory: Path) -> Iterator[Path]:
    """``directory`` and all directories below it, leaves first."""
    for child in directories(directory):
        yield from walk(child)
    yield directory


def read(file: Path) -> bytes:
    """Contents of ``file``; empty if it does not exist."""
    with vanishing():
        return file.read_bytes()
    return b""
