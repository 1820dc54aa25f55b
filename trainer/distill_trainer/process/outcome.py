"""Decides how a rank and a container end: exit code, reason and message. Pure functions."""

import re
import signal
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from distill_api.base import Model
from distill_api.constants import ExitCode
from distill_api.errors import Checked, Permanent, Stopped, TrainerError
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_api.status import Result
from distill_trainer.process.liveness.flight_recorder import Position, describe
from distill_trainer.process.liveness.heartbeat import MissedHeartbeat

FAILURE_EXIT_CODE = 1

_PEER_LOSS_TYPES = frozenset({"DistBackendError", "DistNetworkError", "DistStoreError"})
_PEER_LOSS_TEXT = re.compile(
    r"gloo/|Connection closed by peer|Connection reset by peer|Connection refused|Broken pipe|NCCL|"
    r"Application timeout caused pair closure|Timed out waiting|wait timeout|Socket closed|\[c10d\]|ProcessGroup"
)
_DEVICE_ERROR_TYPES = frozenset({"AcceleratorError", "RuntimeError", "DistBackendError"})
_DEVICE_TEXT = re.compile(
    r"uncorrectable (?:ECC|NVLink) error|hardware stack error|unspecified launch failure|CUDA error: unknown error|"
    r"is/are busy or unavailable|system not yet initialized|over nvlink or a hardware error|GPU is lost|"
    r"fallen off the bus|\bXid\b"
)
"""Errors of CUDA that a device, a driver or a node makes. A device-side assert or an illegal memory access is not among
them: the program makes these."""
_MEMORY_TEXT = re.compile(
    r"CUDA (?:driver )?error: out of memory|Cuda failure (?:\d+ )?'out of memory'|"
    r"CU(?:BLAS|SOLVER)_STATUS_ALLOC_FAILED|CUDNN_STATUS_\w*ALLOC\w*_FAILED"
)
"""Errors of a device without memory, beside those of PyTorch's allocator: of CUDA, under NCCL, and of its libraries."""
_PROGRAM_TEXT = re.compile(r"device-side assert triggered|an illegal memory access was encountered|misaligned address")
_PROGRAM_ADVICE = (
    "the usual cause is an index outside its range, such as a class that the model does not have; for the line where "
    "it happens, set CUDA_LAUNCH_BLOCKING=1 in spec.template"
)
_CUDA_ERROR = re.compile(r"(?:CUDA (?:driver )?error: |Cuda failure )[^\n]+")
_ABORT_TEXT = "watchdog thread terminated with exception"
"""Written by c10d's watchdog before it aborts the process, after an error of NCCL or of the rank's own device."""
_WAITED_TEXT = re.compile(r"[Tt]imed out|[Tt]imeout")
_ECHO_EXIT_SIGNALS = frozenset({signal.SIGTERM, signal.SIGKILL})
_ECHO_SECONDS = 2.0
"""A rank killed by a signal more than this long after the first rank ended was killed by the launcher."""


class RankReport(Model):
    """How a rank ended. The rank writes it to a file for the launcher."""

    exit_code: int
    """Exit code of the container if this rank is the cause."""
    at: float
    """Unix time of the end."""
    message: TerminationMessage
    """Termination message of the container if this rank is the cause."""
    position: Position | None = None
    """In the gang's collectives, of a rank that was stuck in one or outside of them."""


@dataclass(frozen=True)
class RankEnd:
    """How a rank ended, as the launcher sees it."""

    rank: int
    exit_code: int
    """Negative for a signal."""
    at: float
    """Unix time of the end: from the report if there is one."""
    report: RankReport | None
    stepped: bool = False
    """Whether it finished a step in this attempt, by its last status."""
    missed: MissedHeartbeat | None = None
    """Set if the launcher killed the rank because its heartbeat stopped."""
    said: str = ""
    """The end of what it wrote to stderr."""


@dataclass(frozen=True)
class Ending:
    """Exit code and termination message of a process."""

    exit_code: int
    message: TerminationMessage
    unexpected: bool = False
    """Whether the error is of an unknown kind, so that its traceback belongs in the log."""


def ending_of(
    error: BaseException | None, result: Result | None, *, rank: int, attempt: int, phase: str = "start"
) -> Ending:
    """The ending of a rank whose training returned `result`, or raised `error` in `phase`."""

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
    if isinstance(error, Checked):
        return end(ExitCode.DONE, "done", Reason.CHECKED, str(error))
    if isinstance(error, Stopped):
        return end(ExitCode.STOPPED, "stopped", Reason.STOPPED, str(error))
    if isinstance(error, Permanent):
        return end(ExitCode.PERMANENT, "permanent", error.reason, error.message)
    if isinstance(error, TrainerError):
        return end(FAILURE_EXIT_CODE, "failed", error.reason, error.message)
    text = error_line(error)
    if is_device_failure(error):
        return end(FAILURE_EXIT_CODE, "failed", Reason.ACCELERATOR_FAILED, text, unexpected=True)
    if _is_out_of_memory(error):
        advice = "lower training.batch or training.imgsz, or use accelerators with more memory"
        return end(FAILURE_EXIT_CODE, "failed", Reason.OUT_OF_MEMORY, f"{text}; {advice}")
    if is_peer_loss(error):
        if _WAITED_TEXT.search(text):
            waited = f"rank {rank} timed out waiting for another rank in phase {phase}: {text}"
            return end(FAILURE_EXIT_CODE, "failed", Reason.PEER_LOST, waited, waited=True)
        return end(FAILURE_EXIT_CODE, "failed", Reason.PEER_LOST, f"lost connection to a peer: {text}")
    if "DataLoader worker" in text and "killed by signal" in text:
        advice = "too little memory; lower training.workers or raise the pod's limits"
        return end(FAILURE_EXIT_CODE, "failed", Reason.PROCESS_KILLED, f"{text} ({advice})")
    if type(error).__name__ in _DEVICE_ERROR_TYPES and _PROGRAM_TEXT.search(text):
        text = f"{text}; {_PROGRAM_ADVICE}"
    return end(FAILURE_EXIT_CODE, "failed", Reason.TRAINER_ERROR, text, unexpected=True)


def is_peer_loss(error: BaseException) -> bool:
    """Whether the error only says that another rank is gone, so that this rank is not the cause."""
    if type(error).__name__ in _PEER_LOSS_TYPES:
        return True
    return type(error) in (RuntimeError, ConnectionError) and bool(_PEER_LOSS_TEXT.search(str(error)))


def is_device_failure(error: BaseException) -> bool:
    """Whether a CUDA device, or what it is attached to, has failed, so that another node may not have the problem."""
    return type(error).__name__ in _DEVICE_ERROR_TYPES and bool(_DEVICE_TEXT.search(str(error)))


def _is_out_of_memory(error: BaseException) -> bool:
    """Of the host or of a device; what does not use PyTorch's allocator tells it by its text."""
    kind = type(error).__name__
    return (
        isinstance(error, MemoryError)
        or kind == "OutOfMemoryError"
        or (kind in _DEVICE_ERROR_TYPES and bool(_MEMORY_TEXT.search(str(error))))
    )


def error_line(error: BaseException) -> str:
    """Type and message of an error in one line."""
    return " ".join("".join(traceback.format_exception_only(error)).split())


def conclude(
    ends: Sequence[RankEnd], *, attempt: int, world_size: int, stop_requested: bool, oom_killed: bool
) -> Ending:
    """The ending of the container: that of the rank that failed first.

    `ends` holds every rank of this node. Ranks that only lost a peer, or that the launcher killed, are the cause only
    if no other rank failed. If all ranks of the gang run on this node and only waited for each other, the reason is
    Stalled.
    """
    # A rank without a heartbeat that resumed for its stack dump reports only that its peers had gone meanwhile.
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
        return stopped_before_first_step(attempt)
    else:
        blamed = min((end for end in failed if end not in stopped), key=lambda end: (end.at, end.rank))
    if blamed.report is None:
        return _killed(blamed, attempt, world_size, stop_requested, oom_killed)
    waited = [end for end in failed if end.report is not None and end.report.message.waited]
    if waited and not culprits:
        first = min(waited, key=lambda end: (end.at, end.rank))
        return _stalled_together(first) if len(ends) == world_size else _as_reported(first)
    return _as_reported(blamed)


def with_positions(ending: Ending, ends: Sequence[RankEnd]) -> Ending:
    """The ending of a gang that was stuck, with how far each rank of this node had come."""
    positions = {end.rank: end.report.position for end in ends if end.report is not None and end.report.position}
    message = ending.message
    if message.reason not in (Reason.STALLED, Reason.PEER_LOST) or not positions:
        return ending
    text = f"{message.message}; {describe(positions)}"
    return replace(ending, message=message.model_copy(update={"message": text}))


def stopped_before_first_step(attempt: int) -> Ending:
    """The ending of a container that is stopped before any work could be lost."""
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
    if end.exit_code == -signal.SIGABRT and _ABORT_TEXT in end.said:
        return not _CUDA_ERROR.search(end.said)
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
            f"rank {end.rank} sent no heartbeat for {end.missed.seconds:.0f} s in phase {end.missed.phase}: its "
            "process was stopped or hung; its log has the stacks of its threads"
        )
    elif end.exit_code < 0:
        code = 128 - end.exit_code
        name = _signal_name(-end.exit_code)
        text = f"rank {end.rank} was killed by {name}"
        if -end.exit_code == signal.SIGKILL:
            reason = Reason.OUT_OF_MEMORY if oom_killed else Reason.PROCESS_KILLED
            if oom_killed:
                text += ": the container ran out of memory; raise its memory limit or lower training.workers"
            elif stop_requested:
                text += (
                    ": it did not commit its checkpoint within the grace period; see its log for what it waited for, "
                    "or raise recovery.gracePeriodSeconds"
                )
        elif -end.exit_code == signal.SIGABRT and (error := _CUDA_ERROR.search(end.said)):
            own = ending_of(RuntimeError(error[0]), None, rank=end.rank, attempt=attempt).message
            reason, text = own.reason, f"{text} after {own.message.removeprefix('RuntimeError: ')}"
        elif -end.exit_code == signal.SIGABRT and world_size > 1:
            # NCCL's watchdog aborts the process when a collective times out.
            reason = Reason.PEER_LOST
            text += ", as PyTorch does when a peer of a collective is gone"
        elif -end.exit_code == signal.SIGBUS:
            text += ": a file that it had mapped could not be read, or /dev/shm is full"
    else:
        text = f"rank {end.rank} ended with exit code {end.exit_code} and without a report"
        code = end.exit_code if end.exit_code not in (0, *ExitCode) else FAILURE_EXIT_CODE
    message = TerminationMessage(outcome="failed", reason=reason, message=text, rank=end.rank, attempt=attempt)
    return Ending(code, message)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
