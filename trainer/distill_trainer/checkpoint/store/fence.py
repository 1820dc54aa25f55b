"""The fence: a file that names the attempt that may commit, so that an older attempt that still runs cannot.

Besides the attempt's number it has a unique holder: if two processes run as the same attempt (`distill run` reuses the
number if the first process was killed before it raised the fence), only the later one may commit.

The order of operations makes it safe without locks. A new attempt raises the fence, then renames every uncommitted
checkpoint away, then looks for the newest committed one. An old attempt creates its uncommitted folder, then reads the
fence, then renames the folder. Either it reads the new fence, or its folder existed before the fence was raised; then
its rename fails, or happens before the new attempt looks.
"""

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.store.storage import atomic_write, storage_errors


@dataclass(frozen=True)
class Fence:
    """Contents of the fence file. Only the process that raised it may commit."""

    uid: str
    attempt: int
    holder: str = ""
    """Unique name of the process that raised it."""


def read_fence(directory: Path) -> Fence | None:
    """Read the fence of a checkpoint directory; None before the first attempt. Raises Permanent if it is damaged."""
    path = directory / layout.FENCE
    try:
        with storage_errors(path):
            content = json.loads(path.read_bytes()) if path.exists() else None
        if content is None:
            return None
        return Fence(str(content["uid"]), int(content["attempt"]), str(content.get("holder", "")))
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
            raise Retryable(Reason.SUPERSEDED, superseded_message(attempt, present.attempt))


def raise_fence(directory: Path, uid: str, attempt: int) -> Fence:
    """Allow only the caller, as `attempt`, and later attempts to commit. Returns the new fence.

    Raises the same errors as `check_fence`.
    """
    check_fence(directory, uid, attempt)
    raised = Fence(uid, attempt, uuid.uuid4().hex)
    atomic_write(directory / layout.FENCE, json.dumps(asdict(raised)).encode())
    return raised


def check_owner(directory: Path, uid: str, found: str) -> None:
    """Raise Permanent if the directory belongs to another job of the same name."""
    if found != uid:
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"{directory} has checkpoints of another DistillJob (uid {found}; this job has uid {uid}); "
            "rename this job or delete that directory",
        )


def superseded_message(attempt: int, newer: int) -> str:
    """Error message for an attempt that finds a newer fence."""
    if newer == attempt:
        return f"attempt {attempt} of this job was started again; this process can no longer commit and ends"
    return f"attempt {newer} of this job has started; attempt {attempt} can no longer commit and ends"
