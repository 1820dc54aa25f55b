"""The commit: from bytes in memory to a checkpoint that survives anything, or to nothing at all."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.manifest import FileEntry, Manifest
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.fence import Fence, read_fence
from distill_trainer.checkpoint.store.storage import discard, exchange, sync_directory, write_all, write_durably

log = logging.getLogger(__name__)

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Commit:
    """What is to be committed, and as whose."""

    directory: Path
    fence: Fence
    """As the one who commits has raised it."""
    step: int
    versions: Versions
    keep: int

    @property
    def attempt(self) -> int:
        """Number of the attempt that commits."""
        return self.fence.attempt


class Fenced(Exception):
    """A newer attempt exists; nothing was committed."""

    def __init__(self, newer: int) -> None:
        super().__init__(f"fenced by attempt {newer}")
        self.newer = newer


def commit(order: Commit, files: dict[str, memoryview], now: Callable[[], datetime]) -> datetime:
    """Make a checkpoint of `files` durable under the name of its step, prune older ones, and return its time.

    Written, fsynced and described by a manifest under a temporary name, then renamed, then the parent is fsynced:
    a crash at any moment leaves the older checkpoints as they were and this one whole or absent. One of the same step
    is replaced, and readable until the new one is in its place. What cannot be deleted afterwards is left, and logged.
    Raises Fenced, or OSError after taking back what it had written.
    """
    temporary = layout.uncommitted(order.directory, order.step, order.attempt)
    discard(temporary)
    in_place = False
    try:
        temporary.mkdir()
        entries = {name: _write_hashed(temporary / name, content) for name, content in files.items()}
        time = now()
        manifest = Manifest(order.fence.uid, order.attempt, order.step, time, order.versions, entries)
        write_durably(temporary / layout.MANIFEST, manifest.to_bytes())
        sync_directory(temporary)
        _check_fence(order)
        _put_in_place(order, temporary)
        in_place = True
        sync_directory(order.directory)
    except (OSError, Fenced) as error:
        if not in_place:  # afterwards it may be the older checkpoint, and the only one that is on the disk
            with contextlib.suppress(OSError):
                discard(temporary)
        if isinstance(error, FileNotFoundError):
            # The fence's raiser makes uncommitted folders disappear: see fence.py.
            _check_fence(order)
        raise
    for old in (temporary, layout.replaced(order.directory, order.step)):
        _tidy_away(old)
    prune(order.directory, order.keep)
    return time


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` (at least one) committed checkpoints and the newest damaged one."""
    steps = layout.committed_steps(directory)[: -max(1, keep)]
    old = [place(directory, step) for step in steps for place in (layout.committed, layout.replaced)]
    old += [layout.damaged(directory, step) for step in layout.damaged_steps(directory)[:-1]]
    for path in old:
        _tidy_away(path)


def _put_in_place(order: Commit, temporary: Path) -> None:
    """Give the prepared checkpoint its name. At every moment there is one of that step to be read, if there was."""
    final = layout.committed(order.directory, order.step)
    if not final.exists():
        os.rename(temporary, final)
    elif not exchange(temporary, final):
        aside = layout.replaced(order.directory, order.step)
        discard(aside)
        os.rename(final, aside)
        try:
            os.rename(temporary, final)
        except OSError:
            with contextlib.suppress(OSError):
                os.rename(aside, final)
            raise


def _tidy_away(path: Path) -> None:
    try:
        discard(path)
    except OSError as error:
        # The commit is good without it, and the next one tries again.
        log.warning("cannot delete %s, which is no longer needed: %s", path, error.strerror or error)


def _check_fence(order: Commit) -> None:
    fence = read_fence(order.directory)
    if fence is not None and fence != order.fence:
        raise Fenced(fence.attempt)


def _write_hashed(path: Path, content: memoryview) -> FileEntry:
    digest = hashlib.sha256()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        for start in range(0, len(content), _CHUNK):
            chunk = content[start : start + _CHUNK]
            write_all(descriptor, chunk)
            digest.update(chunk)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return FileEntry(len(content), digest.hexdigest())
