"""The fence: one small file that says who may commit. An older attempt that still lives can commit nothing.

Each raiser has a name of its own beside the attempt's number: where two processes were started as the same attempt,
as `distill run` does when the one before was killed before it had left a trace, only the later one may commit.

The order makes it safe without locks. A new attempt raises the fence, then makes every uncommitted checkpoint
disappear by a rename, then looks for the newest committed one. An old attempt creates its uncommitted folder, then
reads the fence, then renames: either it reads the new number, or its folder was there before the fence was raised
and its rename fails or precedes the new attempt's look.
"""

import json
import uuid
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.store.storage import atomic_write, naming_errors


@dataclass(frozen=True)
class Fence:
    """Who may commit: the process that has raised it, and later attempts of this job once they have raised theirs."""

    uid: str
    attempt: int
    holder: str = ""
    """Name of the process that has raised it."""


def read_fence(directory: Path) -> Fence | None:
    """The fence of a checkpoint directory; None before the first attempt. Raises Permanent when it is damaged."""
    path = directory / layout.FENCE
    try:
        with naming_errors(path):
            content = json.loads(path.read_bytes()) if path.exists() else None
        if content is None:
            return None
        return Fence(str(content["uid"]), int(content["attempt"]), str(content.get("holder", "")))
    except (ValueError, KeyError, TypeError):
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"the fence file {path} is damaged; delete it if no attempt of this job runs any more",
        ) from None


def check_fence(directory: Path, uid: str, attempt: int) -> None:
    """Check that `attempt` may raise its fence; nothing is changed.

    Raises Permanent when the directory holds another job's checkpoints, Retryable when a newer attempt has been here.
    """
    present = read_fence(directory)
    if present is not None and present.uid != uid and not any(directory.glob("step-*")):
        present = None  # a job that has ended by a mistake before its first commit, and was corrected
    if present is not None:
        check_owner(directory, uid, present.uid)
        if present.attempt > attempt:
            raise Retryable(Reason.SUPERSEDED, superseded(attempt, present.attempt))


def raise_fence(directory: Path, uid: str, attempt: int) -> Fence:
    """Let only the caller, as `attempt`, and later attempts commit; the fence that it has raised.

    Raises as `check_fence` does.
    """
    check_fence(directory, uid, attempt)
    raised = Fence(uid, attempt, uuid.uuid4().hex)
    atomic_write(directory / layout.FENCE, json.dumps(asdict(raised)).encode())
    return raised


def check_owner(directory: Path, uid: str, found: str) -> None:
    """Refuse a directory of another job of the same name. Raises Permanent."""
    if found != uid:
        raise Permanent(
            Reason.CHECKPOINT_UNREADABLE,
            f"{directory} holds checkpoints of another DistillJob (uid {found}, this one is {uid}); "
            "give this job another name, or delete that directory",
        )


def superseded(attempt: int, newer: int) -> str:
    """What an attempt is told that meets a higher fence."""
    if newer == attempt:
        return f"attempt {attempt} of this job was started a second time; the first one commits nothing more and ends"
    return f"attempt {newer} of this job has started; attempt {attempt} commits nothing any more and ends"
