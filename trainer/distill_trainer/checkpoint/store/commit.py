"""Commits a checkpoint atomically and durably."""

import contextlib
import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.manifest import FileEntry, Manifest
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.fence import Fence, successor
from distill_trainer.checkpoint.store.storage import discard, exchange, sync_directory, write_all, write_durably

log = logging.getLogger(__name__)

_CHUNK = 4 << 20


@dataclass(frozen=True)
class Commit:
    """What to commit, and for which life of the job."""

    directory: Path
    fence: Fence
    """The fence that the committing process raised."""
    step: int
    versions: Versions
    keep: int
    run: dict[str, Any] | None = None
    """The definition of the run."""

    @property
    def attempt(self) -> int:
        """Number of the committing attempt."""
        return self.fence.attempt


class Fenced(Exception):
    """A newer life of the job has raised the fence; nothing was committed."""

    def __init__(self, newer: Fence) -> None:
        super().__init__(f"fenced by attempt {newer.attempt}, execution {newer.execution}")
        self.newer = newer


def commit(order: Commit, files: dict[str, memoryview], now: Callable[[], datetime]) -> datetime:
    """Write `files` as the checkpoint of a step, delete old checkpoints, and return the time of the commit.

    The files and a manifest are written to a temporary folder and fsynced, the folder is renamed, and its parent is
    fsynced. A crash at any moment leaves the older checkpoints unchanged and this one complete or absent. An existing
    checkpoint of the same step stays readable until this one replaces it. Failed deletions are only logged.
    Raises Fenced, or OSError after deleting what was written.
    """
    temporary = layout.uncommitted(order.directory, order.step, order.attempt, order.fence.execution)
    discard(temporary)
    in_place = False
    try:
        temporary.mkdir()
        entries = {name: _write_hashed(temporary / name, content) for name, content in files.items()}
        time = now()
        manifest = Manifest(order.fence.uid, order.attempt, order.step, time, order.versions, entries, order.run)
        write_durably(temporary / layout.MANIFEST, manifest.to_bytes())
        sync_directory(temporary)
        _check_fence(order)
        _put_in_place(order, temporary)
        in_place = True
        sync_directory(order.directory)
    except (OSError, Fenced) as error:
        if not in_place:  # once renamed, `temporary` may be the older checkpoint, and the only durable one
            with contextlib.suppress(OSError):
                discard(temporary)
        if isinstance(error, FileNotFoundError):
            # A newer life that raises the fence deletes uncommitted folders: see fence.py.
            _check_fence(order)
        raise
    for old in (temporary, layout.replaced(order.directory, order.step)):
        _delete(old)
    prune(order.directory, order.keep)
    return time


def prune(directory: Path, keep: int) -> None:
    """Delete all but the newest `keep` (at least one) committed checkpoints and the newest damaged one."""
    steps = layout.committed_steps(directory)[: -max(1, keep)]
    old = [place(directory, step) for step in steps for place in (layout.committed, layout.replaced)]
    old += [layout.damaged(directory, step) for step in layout.damaged_steps(directory)[:-1]]
    for path in old:
        _delete(path)


def _put_in_place(order: Commit, temporary: Path) -> None:
    """Rename the temporary folder to its final name. An existing checkpoint of that step is readable throughout."""
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


def _delete(path: Path) -> None:
    try:
        discard(path)
    except OSError as error:
        # The commit is valid anyway, and the next one tries again.
        log.warning("cannot delete %s, which is no longer needed: %s", path, error.strerror or error)


def _check_fence(order: Commit) -> None:
    newer = successor(order.directory, order.fence)
    if newer is not None:
        raise Fenced(newer)


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
