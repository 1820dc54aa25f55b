"""The fence: which life of the job's gang may commit, so that one that was replaced and still runs cannot.

Each rank 0 takes an execution number at its start, one more than the last, by creating a file of that name, which only
one process can. Then it writes the fence file with its number. Of two lives, the one with the newer attempt wins, and
within an attempt the one with the higher number. `docs/decisions/0002-fence.md` has the proof.

The order of operations makes it safe without locks. A new life raises the fence, then renames every uncommitted
checkpoint away, then looks for the newest committed one. An old life creates its uncommitted folder, whose name no
other one has, then reads the fence, then renames the folder. Either it reads the new fence, or its folder existed
before the fence was raised; then its rename fails, or happens before the new life looks.
"""

import contextlib
import json
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.store.storage import (
    atomic_write,
    make_directory,
    storage_errors,
    sync_directory,
    write_durably,
)

UNCOUNTED: Final = 0
"""Execution of a fence that was raised by a trainer from before executions were counted."""


@dataclass(frozen=True)
class Fence:
    """Contents of the fence file. Only the process that raised it may commit."""

    uid: str
    attempt: int
    holder: str = ""
    """Unique name of the process that raised it."""
    execution: int = UNCOUNTED
    """Number of this life of the job's gang."""

    def replaced_by(self, other: "Fence") -> bool:
        """Whether this life may commit nothing any more because `other`, which is another one, has begun."""
        if other.uid != self.uid or other.execution == UNCOUNTED:
            return True  # raised after this one: it would not have been raised over one of another job, or older
        return (other.attempt, other.execution) >= (self.attempt, self.execution)


def read_fence(directory: Path) -> Fence | None:
    """Read the fence of a checkpoint directory; None before the first attempt. Raises Permanent if it is damaged."""
    path = directory / layout.FENCE
    try:
        with storage_errors(path):
            return _parse(path.read_bytes()) if path.exists() else None
    except (ValueError, KeyError, TypeError):
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"the fence file {path} is damaged; delete it if no attempt of this job is running",
        ) from None


def check_fence(directory: Path, uid: str, attempt: int) -> None:
    """Check that `attempt` may raise its fence, without changing anything.

    Raises Permanent if the directory has another job's checkpoints, and Retryable if a newer attempt raised the fence.
    """
    present = read_fence(directory)
    if present is not None and present.uid != uid and not any(directory.glob("step-*")):
        present = None  # a job that failed before its first commit, and was corrected
    if present is not None:
        check_owner(directory, uid, present.uid)
        if present.attempt > attempt:
            raise superseded(Fence(uid, attempt), present)


def raise_fence(directory: Path, uid: str, attempt: int) -> Fence:
    """Allow only the caller, as `attempt`, and later lives of the job to commit. Returns the new fence.

    Raises the same errors as `check_fence`, and Retryable if a later life takes its number at the same time.
    """
    check_fence(directory, uid, attempt)
    raised = _claim(directory, uid, attempt)

    def check() -> None:
        newer = _newer_claim(directory, raised)
        if newer is not None:
            raise superseded(raised, newer)

    atomic_write(directory / layout.FENCE, _bytes(raised), guard=check)
    check()  # a later life whose fence this one has replaced reads its claim, but an earlier one must end
    for number, path in layout.executions(directory).items():
        if number < raised.execution:
            with contextlib.suppress(OSError):
                path.unlink()
    return raised


def successor(directory: Path, mine: Fence) -> Fence | None:
    """The life of the job that has replaced `mine`; None if `mine` may still commit. Raises Permanent, Retryable."""
    present = read_fence(directory)
    if present is None or present == mine:
        return None
    if mine.replaced_by(present):
        return present
    # An earlier life was slow to write its fence, and ends. It may have overwritten that of a later one.
    return _newer_claim(directory, mine)


def check_not_superseded(directory: Path, mine: Fence) -> None:
    """Raise Retryable(Superseded) if another life of the job has replaced `mine`. Raises Permanent, too."""
    newer = successor(directory, mine)
    if newer is not None:
        raise superseded(mine, newer)


def check_owner(directory: Path, uid: str, found: str) -> None:
    """Raise Permanent if the directory belongs to another job of the same name."""
    if found != uid:
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"{directory} has checkpoints of another DistillJob (uid {found}; this job has uid {uid}); "
            "rename this job or delete that directory",
        )


def superseded(mine: Fence, newer: Fence) -> Retryable:
    """The error of a life of the job that has been replaced by a newer one."""
    if newer.attempt == mine.attempt:
        text = f"attempt {mine.attempt} of this job was started again"
        if newer.execution != UNCOUNTED:
            text += f" (execution {newer.execution} after {mine.execution})"
        return Retryable(Reason.SUPERSEDED, f"{text}; this process can no longer commit and ends")
    return Retryable(
        Reason.SUPERSEDED,
        f"attempt {newer.attempt} of this job has started; attempt {mine.attempt} can no longer commit and ends",
    )


def _claim(directory: Path, uid: str, attempt: int) -> Fence:
    """Take the next execution number: no other process gets the same one.

    It is not below the attempt's number, so that the two are equal until an attempt lives more than once.
    """
    with storage_errors(directory):
        make_directory(directory)
        present = read_fence(directory)
        last = max(layout.executions(directory), default=UNCOUNTED)
        number = max(last, present.execution if present is not None else UNCOUNTED, attempt - 1)
        while True:
            number += 1
            fence = Fence(uid, attempt, uuid.uuid4().hex, number)
            with contextlib.suppress(FileExistsError):
                write_durably(layout.execution(directory, number), _bytes(fence))
                sync_directory(directory)
                return fence


def _newer_claim(directory: Path, mine: Fence) -> Fence | None:
    return next((claim for claim in _claims(directory, mine) if claim != mine and mine.replaced_by(claim)), None)


def _claims(directory: Path, mine: Fence) -> Iterator[Fence]:
    """The claims of this job's lives. One that is being written counts by its number."""
    with storage_errors(directory):
        for number, path in layout.executions(directory).items():
            try:
                claim = _parse(path.read_bytes())
            except FileNotFoundError:
                continue
            except (ValueError, KeyError, TypeError):
                claim = Fence(mine.uid, mine.attempt, "", number)
            if claim.uid == mine.uid:
                yield claim


def _parse(content: bytes) -> Fence:
    """Raises ValueError, KeyError, TypeError."""
    found = json.loads(content)
    if not isinstance(found, dict):
        raise TypeError(f"not an object: {found!r}")
    execution = int(found.get("execution", UNCOUNTED))
    return Fence(str(found["uid"]), int(found["attempt"]), str(found.get("holder", "")), execution)


def _bytes(fence: Fence) -> bytes:
    return json.dumps(asdict(fence)).encode()
