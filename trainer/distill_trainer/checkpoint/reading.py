"""Loads the newest intact checkpoint."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.encoding import restore
from distill_trainer.checkpoint.format.manifest import Damaged, Manifest, UnknownFormat, read_manifest, read_verified
from distill_trainer.checkpoint.store.fence import check_owner

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint whose digests were verified."""

    step: int
    state: Any
    manifest: Manifest
    fallbacks: int
    """Number of newer checkpoints that were skipped as unreadable."""


def load_newest(directory: Path, uid: str, on_fallback: Callable[[str], None]) -> LoadedCheckpoint | None:
    """Load the newest checkpoint whose files match their digests; None if none was ever committed.

    A damaged checkpoint is renamed to step-<N>.damaged, logged and reported to `on_fallback`, and the previous one is
    loaded. Raises Permanent if there are checkpoints but none is readable, or if they belong to another job: training
    never restarts from zero when checkpoints exist. Raises Permanent before renaming anything if the checkpoint to
    load has a format that this trainer cannot read.
    """
    unreadable: list[_Unreadable] = []
    loaded: LoadedCheckpoint | None = None
    for step in reversed(layout.committed_steps(directory)):
        path = layout.readable(directory, step)
        try:
            manifest = read_manifest(path)
            check_owner(directory, uid, manifest.uid)
            loaded = LoadedCheckpoint(step, _read_state(path, manifest), manifest, len(unreadable))
            break
        except UnknownFormat as unknown:
            raise _unknown_format(path, unknown) from None
        except Damaged as damage:
            unreadable.append(_Unreadable(step, path, str(damage), damaged=True))
        except OSError as error:
            unreadable.append(_Unreadable(step, path, error.strerror or str(error), damaged=False))
    for one in unreadable:
        if one.damaged:
            _set_aside(one.path, layout.damaged(directory, one.step))
        log.error("checkpoint %s is unreadable (%s); trying the previous one", one.path, one)
        on_fallback(str(one))
    if loaded is None:
        _check_never_committed(directory, unreadable)
    return loaded


def check_formats(directory: Path) -> None:
    """Raise Permanent if the newest intact manifest has a format that this trainer cannot read.

    Changes nothing and ignores other problems. Call this before changing the directory.
    """
    for step in reversed(layout.committed_steps(directory)):
        path = layout.readable(directory, step)
        try:
            read_manifest(path)
        except UnknownFormat as unknown:
            raise _unknown_format(path, unknown) from None
        except (Damaged, OSError):
            continue  # `load_newest` reports these
        return


def check_present(directory: Path, committed_before: int) -> None:
    """Raise Permanent if there is no checkpoint, not even a damaged one, although a step was committed.

    Changes nothing. Older checkpoints than that one are accepted: they are a backup, or what is left when newer ones
    are damaged.
    """
    if committed_before and not layout.committed_steps(directory) and not layout.damaged_steps(directory):
        raise Permanent(
            Reason.CHECKPOINTS_LOST,
            f"{directory} has no checkpoints, but the job has committed step {committed_before}: restore the directory "
            "from a backup and resume the job (spec.suspend), or delete the job to begin again",
        )


@dataclass(frozen=True)
class _Unreadable:
    """A checkpoint that was skipped."""

    step: int
    path: Path
    why: str
    damaged: bool

    def __str__(self) -> str:
        return f"step {self.step}: {self.why}"


def _check_never_committed(directory: Path, unreadable: list[_Unreadable]) -> None:
    earlier = layout.damaged_steps(directory)
    if not unreadable and not earlier:
        return
    details = "; ".join(map(str, unreadable)) or f"found damaged earlier: steps {', '.join(map(str, earlier))}"
    raise Permanent(
        Reason.CHECKPOINT_UNREADABLE,
        f"{directory} has no readable checkpoint ({details}); restore one from a backup, or delete the directory to "
        "start from scratch",
    )


def _unknown_format(path: Path, unknown: UnknownFormat) -> Permanent:
    return Permanent(
        Reason.CHECKPOINT_FORMAT_UNKNOWN,
        f"{path} {unknown}; use a trainer image at least as new as the one that wrote it (the volume was not changed)",
    )


def _read_state(path: Path, manifest: Manifest) -> Any:
    for name in (layout.TENSORS, layout.STRUCTURE):
        if name not in manifest.files:
            raise Damaged(f"{layout.MANIFEST} does not name {name}")
    memory = read_verified(path, layout.TENSORS, manifest.files[layout.TENSORS])
    structure = read_verified(path, layout.STRUCTURE, manifest.files[layout.STRUCTURE])
    return restore(structure, memory)


def _set_aside(path: Path, aside: Path) -> None:
    try:
        os.rename(path, aside)
    except OSError as error:
        # Harmless: the next reader finds the same damage.
        log.warning("cannot rename the damaged checkpoint to %s: %s", aside, error)
