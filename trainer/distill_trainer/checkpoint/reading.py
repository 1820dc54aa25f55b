"""Finding the newest checkpoint that is whole."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.constants import Reason
from distill_api.errors import Permanent
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.encoding import restore
from distill_trainer.checkpoint.format.manifest import Damaged, Manifest, read_manifest, read_verified
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
    starts again from zero beside checkpoints.
    """
    steps = layout.committed_steps(directory)
    unreadable: list[str] = []
    for step in reversed(steps):
        path = layout.readable(directory, step)
        try:
            manifest = read_manifest(path)
            check_owner(directory, uid, manifest.uid)
            state = _read_state(path, manifest)
        except Damaged as damage:
            unreadable.append(f"step {step}: {damage}")
            _set_aside(path, layout.damaged(directory, step))
        except OSError as error:
            unreadable.append(f"step {step}: {error.strerror or error}")
        else:
            return Loaded(step, state, manifest, len(unreadable))
        log.error("checkpoint %s is unreadable (%s); falling back to the previous one", path, unreadable[-1])
        fell_back(unreadable[-1])
    earlier = layout.damaged_steps(directory)
    if unreadable or earlier:
        details = "; ".join(unreadable) or f"set aside earlier: steps {', '.join(map(str, earlier))}"
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"{directory} has no readable checkpoint ({details}); restore one from a backup, or delete the "
            "directory to start again from zero",
        )
    return None


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
