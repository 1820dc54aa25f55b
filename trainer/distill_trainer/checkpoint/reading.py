"""Finding the newest checkpoint that is whole."""

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
class Loaded:
    """A verified checkpoint."""

    step: int
    state: Any
    manifest: Manifest
    fallbacks: int
    """Newer checkpoints that had to be stepped over."""


def newest_readable(directory: Path, uid: str, fell_back: Callable[[str], None]) -> Loaded | None:
    """The newest checkpoint whose files match their digests; None where none was ever committed.

    A damaged one is set aside as step-<N>.damaged, reported to `fell_back` and logged, and the previous one is taken.
    Raises Permanent when checkpoints exist but none is readable, or when they belong to another job: training never
    starts again from zero beside checkpoints. Raises Permanent, too, before anything is set aside, when one that would
    be taken has a format that this trainer does not read.
    """
    unreadable: list[_Unreadable] = []
    loaded: Loaded | None = None
    for step in reversed(layout.committed_steps(directory)):
        path = layout.readable(directory, step)
        try:
            manifest = read_manifest(path)
            check_owner(directory, uid, manifest.uid)
            loaded = Loaded(step, _read_state(path, manifest), manifest, len(unreadable))
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
        log.error("checkpoint %s is unreadable (%s); falling back to the previous one", one.path, one)
        fell_back(str(one))
    if loaded is None:
        _check_never_committed(directory, unreadable)
    return loaded


def check_formats(directory: Path) -> None:
    """Raise Permanent when the newest manifest that is whole has a format that this trainer does not read.

    Changes nothing, and tells of nothing else: for whoever is about to change something.
    """
    for step in reversed(layout.committed_steps(directory)):
        path = layout.readable(directory, step)
        try:
            read_manifest(path)
        except UnknownFormat as unknown:
            raise _unknown_format(path, unknown) from None
        except (Damaged, OSError):
            continue  # `newest_readable` tells
        return


@dataclass(frozen=True)
class _Unreadable:
    """A checkpoint that had to be stepped over."""

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
    details = "; ".join(map(str, unreadable)) or f"set aside earlier: steps {', '.join(map(str, earlier))}"
    raise Permanent(
        Reason.CHECKPOINT_UNREADABLE,
        f"{directory} has no readable checkpoint ({details}); restore one from a backup, or delete the "
        "directory to start again from zero",
    )


def _unknown_format(path: Path, unknown: UnknownFormat) -> Permanent:
    return Permanent(
        Reason.CHECKPOINT_FORMAT_UNKNOWN,
        f"{path} {unknown}; use a trainer image at least as new as the one that wrote it; nothing was changed on the "
        "volume",
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
        # Only tidiness is lost: the digest tells the next reader the same.
        log.warning("cannot rename the damaged checkpoint to %s: %s", aside, error)
