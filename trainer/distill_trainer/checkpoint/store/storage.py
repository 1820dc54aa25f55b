"""Durable file operations, and what their errors mean to the user."""

import contextlib
import ctypes
import errno
import logging
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason

log = logging.getLogger(__name__)

_READ_ONLY = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_EXCHANGE = frozenset({errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP, errno.EXDEV, errno.EPERM})
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def storage_error(error: OSError, path: Path | str) -> TrainerError:
    """Name a storage error: read-only and full are permanent, anything else may pass by itself."""
    where = error.filename or path
    said = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _READ_ONLY:
        return Permanent(
            Reason.STORAGE_READ_ONLY,
            f"cannot write {where}: {said}; mount the checkpoints volume writable for the pod's user (fsGroup)",
        )
    if error.errno in _FULL:
        return Permanent(
            Reason.STORAGE_FULL,
            f"cannot write {where}: {said}; enlarge the checkpoints volume, delete old runs, or lower checkpoint.keep",
        )
    return Retryable(Reason.TRAINER_ERROR, f"storage failed at {where}: {said}; look at the checkpoints volume")


@contextlib.contextmanager
def naming_errors(path: Path) -> Iterator[None]:
    """Turn every OSError of the block into a TrainerError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Create `path`, which must not exist, with `content`, and return when it is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, memoryview(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: memoryview) -> None:
    """Write all of `content`, however many calls it takes. Raises OSError."""
    while content:
        content = content[os.write(descriptor, content) :]


def sync_directory(directory: Path) -> None:
    """Return when the directory's entries (creations, renames) are on the disk. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes, guard: Callable[[], None] = lambda: None) -> None:
    """Replace `path` by `content`: after a crash it holds the old bytes or the new ones, never a part.

    `guard` is called when all is written and nothing is replaced yet; what it raises prevents that.
    Raises Permanent (read-only, full) or Retryable, naming the path.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with naming_errors(path):
        try:
            make_directory(path.parent)
            write_durably(temporary, content)
            guard()
            os.replace(temporary, path)
            sync_directory(path.parent)
        except (OSError, TrainerError):
            temporary.unlink(missing_ok=True)
            raise


def make_directory(directory: Path) -> None:
    """Create a directory and its parents where they are missing; they are on the disk then. Raises OSError."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


def clear_temporaries(directory: Path) -> None:
    """Delete what interrupted atomic writes have left in `directory`, or what an older attempt is about to put there.

    Raises Permanent (read-only, full) or Retryable, naming the path.
    """
    if directory.is_dir():
        with naming_errors(directory):
            for path in directory.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def probe(directory: Path) -> None:
    """Do once all that a commit will do (create, write, fsync, rename, unlink), so that an unusable volume is
    found before the first step.

    Raises Permanent (read-only, full) or Retryable, naming the path.
    """
    with naming_errors(directory):
        make_directory(directory)
        first = directory / f"trash-probe-{uuid.uuid4().hex[:8]}"
        second = first.with_name(first.name + "-renamed")
        try:
            write_durably(first, b"probe")
            os.rename(first, second)
            sync_directory(directory)
        finally:
            for path in (first, second):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()


def discard(path: Path) -> None:
    """Delete a folder or file so that it disappears under its name at once, whatever interrupts the deletion.

    Whoever renames or reads the path at the same time finds all of it or nothing. Raises OSError when the name cannot
    be taken away. What cannot be deleted stays as trash, with a warning in the log.
    """
    trash = path.with_name(f"trash-{uuid.uuid4().hex[:8]}")
    try:
        os.rename(path, trash)
    except FileNotFoundError:
        return
    try:
        if trash.is_dir():
            shutil.rmtree(trash)
        else:
            trash.unlink()
    except OSError as error:
        # NFS keeps a file that someone has open under another name, and its folder with it.
        log.warning("cannot delete %s, formerly %s, yet: %s", trash, path.name, error.strerror or error)


def exchange(one: Path, other: Path) -> bool:
    """Swap two names in one atomic operation; False, with nothing changed, where system or file system cannot.

    Raises OSError. See renameat2(2), RENAME_EXCHANGE; NFS is among those that cannot.
    """
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return False
    if renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _NO_EXCHANGE:
        return False
    raise OSError(number, os.strerror(number), str(one), None, str(other))
