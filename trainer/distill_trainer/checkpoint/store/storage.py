"""Durable file operations, and error messages for storage problems."""

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
    """The TrainerError for an OSError: Permanent if the volume is read-only or full, else Retryable."""
    where = error.filename or path
    text = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _READ_ONLY:
        return Permanent(
            Reason.STORAGE_READ_ONLY,
            f"cannot write {where}: {text}; make the checkpoints volume writable for the pod's user (fsGroup)",
        )
    if error.errno in _FULL:
        return Permanent(
            Reason.STORAGE_FULL,
            f"cannot write {where}: {text}; enlarge the checkpoints volume, delete old runs, or lower checkpoint.keep",
        )
    return Retryable(Reason.TRAINER_ERROR, f"I/O error at {where}: {text}; check the checkpoints volume")


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Convert every OSError raised inside to a TrainerError that names the path and the remedy."""
    try:
        yield
    except OSError as error:
        raise storage_error(error, path) from error


def write_durably(path: Path, content: bytes | memoryview) -> None:
    """Create `path`, which must not exist, with `content`, and fsync it. Raises OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        write_all(descriptor, memoryview(content))
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: memoryview) -> None:
    """Write all of `content`, in as many system calls as needed. Raises OSError."""
    while content:
        content = content[os.write(descriptor, content) :]


def sync_directory(directory: Path) -> None:
    """Fsync a directory, so that created and renamed entries are durable. Raises OSError."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def atomic_write(path: Path, content: bytes | memoryview, guard: Callable[[], None] = lambda: None) -> None:
    """Replace the contents of `path` atomically: after a crash it has either the old or the new contents.

    `guard` is called before the replacement and can prevent it by raising. Raises Permanent (read-only, full) or
    Retryable, naming the path.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage_errors(path):
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
    """Create a directory and its missing parents durably. Raises OSError."""
    missing = [path for path in (directory, *directory.parents) if not path.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    for path in missing:
        sync_directory(path.parent)


def clear_temporaries(directory: Path) -> None:
    """Delete the temporary files of `atomic_write` in `directory`, whether interrupted or of an older attempt.

    Raises Permanent (read-only, full) or Retryable, naming the path.
    """
    if directory.is_dir():
        with storage_errors(directory):
            for path in directory.iterdir():
                if _TEMPORARY.fullmatch(path.name):
                    path.unlink(missing_ok=True)


def probe(directory: Path) -> None:
    """Try all operations of a commit (create, write, fsync, rename, unlink), to detect an unusable volume early.

    Raises Permanent (read-only, full) or Retryable, naming the path.
    """
    with storage_errors(directory):
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
    """Delete a folder or file atomically: other processes see all of it or nothing, even if this is interrupted.

    It is renamed to trash-* and then deleted. Raises OSError if the rename fails. If the deletion fails, the trash
    stays and a warning is logged.
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
        # NFS keeps open files under another name, and with them their folder.
        log.warning("cannot delete %s (renamed from %s): %s", trash, path.name, error.strerror or error)


def exchange(one: Path, other: Path) -> bool:
    """Swap two paths atomically. Returns False, with nothing changed, if the system or file system cannot.

    See RENAME_EXCHANGE in renameat2(2); NFS does not support it. Raises OSError.
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
