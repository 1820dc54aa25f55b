"""What an end means: from a rank's exception to its report, and from the ranks' reports to the container's end.

Pure: everything that happened comes in as values.
"""

import re
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distill_api.base import Model
from distill_api.constants import ExitCode
from distill_api.errors import Permanent, Stopped, TrainerError
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_api.status import Result
from distill_trainer.process.liveness.heartbeat import MissedHeartbeat

FAILURE_EXIT_CODE = 1

_PEER_LOSS_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError"})
_PEER_LOSS_TEXT = re.compile(
    r"gloo/|Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|NCCL|"
    r"Timed out waiting|wait timeout|Socket closed|\[c10d\]|ProcessGroup"
)
_WAITED_TEXT = re.compile(r"[Tt]imed out|[Tt]imeout")
_ECHO_EXIT_SIGNALS = frozenset({signal.SIGTERM, signal.SIGKILL})
_ECHO_SECONDS = 2.0
"""A rank that a signal ends later than this after the first end was ended by the launcher."""


class RankReport(Model):
    """What a rank says of its own end; a small file that the launcher reads."""

    exit_code: int
    """What the container should exit with if this rank is to blame."""
    at: float
    """Unix time of the end."""
    message: TerminationMessage
    """The same in the form that the operator reads."""


@dataclass(frozen=True)
class RankEnd:
    """A rank's end as the launcher saw it."""

    rank: int
    exit_code: int
    """Negative for a signal."""
    at: float
    """Unix time; where the rank has reported, the report's own."""
    report: RankReport | None
    stepped: bool = False
    """Whether its last status tells of a step in this attempt."""
    missed: MissedHeartbeat | None = None
    """That it had no heartbeat any more, where the launcher has given it up for that."""


@dataclass(frozen=True)
class Ending:
    """How the process ends."""

    exit_code: int
    message: TerminationMessage
    unexpected: bool = False
    """An error nobody has foreseen: its traceback belongs in the log."""


def ending_of(
    error: BaseException | None, result: Result | None, *, rank: int, attempt: int, phase: str = "start"
) -> Ending:
    """How a rank ends whose training returned `result` or raised `error` in `phase`."""

    def end(
        code: int,
        outcome: Literal["done", "stopped", "permanent", "failed"],
        reason: Reason,
        text: str,
        unexpected: bool = False,
        waited: bool = False,
        result: Result | None = None,
    ) -> Ending:
        message = TerminationMessage(
            outcome=outcome, reason=reason, message=text, rank=rank, waited=waited, attempt=attempt, result=result
        )
        return Ending(code, message, unexpected)

    if error is None:
        return end(ExitCode.DONE, "done", Reason.COMPLETED, "", result=result)
    if isinstance(error, Stopped):
        return end(ExitCode.STOPPED, "stopped", Reason.STOPPED, str(error))
    if isinstance(error, Permanent):
        return end(ExitCode.PERMANENT, "permanent", error.reason, error.message)
    if isinstance(error, TrainerError):
        return end(FAILURE_EXIT_CODE, "failed", error.reason, error.message)
    text = last_line(error)
    if is_peer_loss(error):
        if _WAITED_TEXT.search(text):
            said = f"rank {rank} waited in vain for another rank in phase {phase}: {text}"
            return end(FAILURE_EXIT_CODE, "failed", Reason.PEER_LOST, said, waited=True)
        return end(FAILURE_EXIT_CODE, "failed", Reason.PEER_LOST, f"lost connection to a peer: {text}")
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        advice = "lower training.batch or training.imgsz, or use accelerators with more memory"
        return end(FAILURE_EXIT_CODE, "failed", Reason.OUT_OF_MEMORY, f"{text}; {advice}")
    if "DataLoader worker" in text and "killed by signal" in text:
        advice = "too little memory or /dev/shm; lower training.workers or raise the pod's limits"
        return end(FAILURE_EXIT_CODE, "failed", Reason.PROCESS_KILLED, f"{text} ({advice})")
    return end(FAILURE_EXIT_CODE, "failed", Reason.TRAINER_ERROR, text, unexpected=True)


def is_peer_loss(error: BaseException) -> bool:
    """Whether the error only says that another rank went away: an echo, not the cause."""
    if type(error).__name__ in _PEER_LOSS_TYPES:
        return True
    return type(error) in (RuntimeError, ConnectionError) and bool(_PEER_LOSS_TEXT.search(str(error)))


def last_line(error: BaseException) -> str:
    """Type and text of an error in one line."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


def conclude(
    ends: Sequence[RankEnd], *, attempt: int, world_size: int, stop_requested: bool, oom_killed: bool
) -> Ending:
    """How the container ends: the rank that failed first is to blame, and what followed is its echo.

    `ends` holds every rank of this node. A rank that only lost its peers, or that the launcher ended itself, is
    blamed only when there is no other. When all ranks of the gang are here and have only waited for each other, the
    gang has stalled.
    """
    # What a silent rank said once it was asked for its stacks is that the others had left meanwhile.
    ends = [end if end.missed is None else replace(end, report=None) for end in ends]
    done = [end for end in ends if end.report is not None and end.report.message.outcome == "done"]
    if len(done) == len(ends):
        first = min(done, key=lambda end: end.rank)
        return _as_reported(first)
    failed = [end for end in ends if end not in done]
    stopped = [end for end in failed if end.report is not None and end.report.message.outcome == "stopped"]
    started = min(end.at for end in failed)
    culprits = [end for end in failed if end not in stopped and not _is_echo(end, started, stop_requested)]
    if culprits:
        blamed = min(culprits, key=lambda end: (end.at, end.rank))
    elif len(stopped) + len(done) == len(ends):
        blamed = min(stopped, key=lambda end: end.rank)
    elif (
        stop_requested
        and all(end.report is None for end in failed if end not in stopped)
        and not any(end.stepped for end in ends)
    ):
        return stopped_early(attempt)
    else:
        blamed = min((end for end in failed if end not in stopped), key=lambda end: (end.at, end.rank))
    if blamed.report is None:
        return _killed(blamed, attempt, world_size, stop_requested, oom_killed)
    waited = [end for end in failed if end.report is not None and end.report.message.waited]
    if waited and not culprits:
        first = min(waited, key=lambda end: (end.at, end.rank))
        return _stalled_together(first) if len(ends) == world_size else _as_reported(first)
    return _as_reported(blamed)


def stopped_early(attempt: int) -> Ending:
    """How the container ends that was asked to stop before it had done anything that could be lost."""
    message = "stopped on request before the first step of this attempt"
    return Ending(
        ExitCode.STOPPED,
        TerminationMessage(outcome="stopped", reason=Reason.STOPPED, message=message, attempt=attempt),
    )


def _is_echo(end: RankEnd, started: float, stop_requested: bool) -> bool:
    if end.report is not None:
        return end.report.message.reason.facts.echo
    if end.missed is not None:
        return False
    if end.exit_code == -signal.SIGTERM:
        return True
    late = end.at - started > _ECHO_SECONDS
    return -end.exit_code in _ECHO_EXIT_SIGNALS and (late or stop_requested)


def _as_reported(end: RankEnd) -> Ending:
    assert end.report is not None
    return Ending(end.report.exit_code, end.report.message)


def _stalled_together(end: RankEnd) -> Ending:
    assert end.report is not None
    return Ending(end.report.exit_code, end.report.message.model_copy(update={"reason": Reason.STALLED}))


def _killed(end: RankEnd, attempt: int, world_size: int, stop_requested: bool, oom_killed: bool) -> Ending:
    reason, code = Reason.TRAINER_ERROR, FAILURE_EXIT_CODE
    if end.missed is not None:
        reason = Reason.STALLED
        text = (
            f"rank {end.rank} has answered nothing for {end.missed.seconds:.0f} s, in phase {end.missed.phase}: "
            "its process was stopped or hung as a whole; its threads' stacks are in its log"
        )
    elif end.exit_code < 0:
        code = 128 - end.exit_code
        name = _signal_name(-end.exit_code)
        text = f"rank {end.rank} was ended by {name}"
        if -end.exit_code == signal.SIGKILL:
            reason = Reason.OUT_OF_MEMORY if oom_killed else Reason.PROCESS_KILLED
            if oom_killed:
                text += ": the container ran out of memory; raise its memory limit or lower training.workers"
            elif stop_requested:
                text += (
                    ": asked to stop, it had not committed within the grace period; see what it waited for in its "
                    "log, or raise recovery.gracePeriodSeconds"
                )
        elif -end.exit_code == signal.SIGABRT and world_size > 1:
            # NCCL's own watchdog aborts the process when a collective does not end.
            reason = Reason.PEER_LOST
            text += ", as PyTorch does when a collective's peer is gone"
        elif -end.exit_code == signal.SIGBUS:
            text += ": most often /dev/shm is full; enlarge it or lower training.workers"
    else:
        text = f"rank {end.rank} left with exit code {end.exit_code} and without a report"
        code = end.exit_code if end.exit_code not in (0, *ExitCode) else FAILURE_EXIT_CODE
    message = TerminationMessage(outcome="failed", reason=reason, message=text, rank=end.rank, attempt=attempt)
    return Ending(code, message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
