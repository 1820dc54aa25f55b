"""What an end means: tables from errors to reports, and from the ranks' ends to the container's."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from distill_api.errors import Permanent, Retryable, Stopped
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_api.status import Result
from distill_trainer.process.liveness.heartbeat import MissedHeartbeat
from distill_trainer.process.outcome import RankEnd, RankReport, conclude, ending_of

RESULT = Result(checkpoint="job/weights/best.pt", sha256="0" * 64)


class DistBackendError(RuntimeError):
    """Named as PyTorch's."""


@pytest.mark.parametrize(
    ("error", "code", "outcome", "reason", "text"),
    [
        (None, 0, "done", Reason.COMPLETED, ""),
        (Stopped(7, 7), 143, "stopped", Reason.STOPPED, "stopped on request at step 7; committed step 7"),
        (Permanent(Reason.PAIR_MISMATCH, "a\n  b"), 78, "permanent", Reason.PAIR_MISMATCH, "a b"),
        (Retryable(Reason.SUPERSEDED, "new"), 1, "failed", Reason.SUPERSEDED, "new"),
        (DistBackendError("x"), 1, "failed", Reason.PEER_LOST, "lost connection to a peer: "),
        (
            RuntimeError("[gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.1]:1"),
            1,
            "failed",
            Reason.PEER_LOST,
            "lost connection to a peer: RuntimeError: ",
        ),
        (
            RuntimeError("[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 7000ms for recv operation"),
            1,
            "failed",
            Reason.PEER_LOST,
            "rank 3 timed out waiting for another rank in phase backward: RuntimeError: ",
        ),
        (
            RuntimeError(
                "Got the following error when running the callback: RuntimeError: Application timeout caused pair "
                "closure"
            ),
            1,
            "failed",
            Reason.PEER_LOST,
            "rank 3 timed out waiting for another rank in phase backward: RuntimeError: ",
        ),
        (MemoryError(), 1, "failed", Reason.OUT_OF_MEMORY, "lower training.batch"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
            1,
            "failed",
            Reason.PROCESS_KILLED,
            "lower training.workers",
        ),
        (ValueError("shape\nmismatch"), 1, "failed", Reason.TRAINER_ERROR, "ValueError: shape mismatch"),
        (SystemExit(0), 1, "failed", Reason.TRAINER_ERROR, "SystemExit: 0"),
    ],
)
def test_every_error_has_a_code_a_reason_and_one_line(
    error: BaseException | None, code: int, outcome: str, reason: Reason, text: str
) -> None:
    ending = ending_of(error, RESULT if error is None else None, rank=3, attempt=2, phase="backward")

    assert (ending.exit_code, ending.message.outcome, ending.message.reason) == (code, outcome, reason)
    assert text in ending.message.message
    assert "\n" not in ending.message.message
    assert (ending.message.rank, ending.message.attempt) == (3, 2)


ASYNCHRONOUS = (
    "CUDA kernel errors might be asynchronously reported at some other API call, so the stacktrace below might be "
    "incorrect.\nFor debugging consider passing CUDA_LAUNCH_BLOCKING=1.\nCompile with `TORCH_USE_CUDA_DSA` to enable "
    "device-side assertions.\n"
)
NCCL = (
    "NCCL error in: /pytorch/torch/csrc/distributed/c10d/NCCLUtils.cpp:94, unhandled cuda error (run with "
    "NCCL_DEBUG=INFO for details), NCCL version 2.27.3\nncclUnhandledCudaError: Call to CUDA function failed.\n"
    "Last error:\nCuda failure {}"
)


@pytest.mark.parametrize("kind", [torch.AcceleratorError, RuntimeError])
@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("uncorrectable ECC error encountered", Reason.ACCELERATOR_FAILED),
        ("uncorrectable NVLink error detected during the execution", Reason.ACCELERATOR_FAILED),
        ("unspecified launch failure", Reason.ACCELERATOR_FAILED),
        ("hardware stack error", Reason.ACCELERATOR_FAILED),
        ("unknown error", Reason.ACCELERATOR_FAILED),
        ("CUDA-capable device(s) is/are busy or unavailable", Reason.ACCELERATOR_FAILED),
        ("system not yet initialized", Reason.ACCELERATOR_FAILED),
        ("device-side assert triggered", Reason.TRAINER_ERROR),
        ("an illegal memory access was encountered", Reason.TRAINER_ERROR),
        ("misaligned address", Reason.TRAINER_ERROR),
        ("invalid configuration argument", Reason.TRAINER_ERROR),
        ("out of memory", Reason.OUT_OF_MEMORY),
    ],
)
def test_cuda_errors_of_a_machine_are_told_from_those_of_a_program(
    kind: type[Exception], said: str, reason: Reason
) -> None:
    ending = ending_of(kind(f"CUDA error: {said}\n{ASYNCHRONOUS}"), None, rank=3, attempt=2)
    assert (ending.exit_code, ending.message.outcome, ending.message.reason) == (1, "failed", reason)
    assert said in ending.message.message
    assert "\n" not in ending.message.message


@pytest.mark.parametrize(
    "said",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA driver error: out of memory",
    ],
)
def test_libraries_that_find_no_memory_tell_it_in_their_own_words(said: str) -> None:
    ending = ending_of(RuntimeError(said), None, rank=0, attempt=1)
    assert ending.message.reason == Reason.OUT_OF_MEMORY
    assert "lower training.batch" in ending.message.message
    assert ending_of(ValueError(said), None, rank=0, attempt=1).message.reason == Reason.TRAINER_ERROR


@pytest.mark.parametrize("said", ["device-side assert triggered", "an illegal memory access was encountered"])
def test_a_kernels_mistake_comes_with_its_usual_cause(said: str) -> None:
    ending = ending_of(RuntimeError(f"CUDA error: {said}\n{ASYNCHRONOUS}"), None, rank=0, attempt=1)
    assert "such as a class that the model does not have" in ending.message.message
    assert "usual cause" not in ending_of(RuntimeError(said.upper()), None, rank=0, attempt=1).message.message


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (NCCL.format("214 'uncorrectable ECC error encountered'"), Reason.ACCELERATOR_FAILED),
        (NCCL.format("719 'unspecified launch failure'"), Reason.ACCELERATOR_FAILED),
        (NCCL.format("2 'out of memory'"), Reason.OUT_OF_MEMORY),
        (NCCL.format("'out of memory'"), Reason.OUT_OF_MEMORY),
        ("NCCL error: remote process exited or there was a network error, NCCL version 2.27.3", Reason.PEER_LOST),
    ],
)
def test_a_device_that_fails_under_nccl_is_no_lost_peer(said: str, reason: Reason) -> None:
    assert ending_of(DistBackendError(said), None, rank=0, attempt=1).message.reason == reason


def test_a_text_about_a_device_in_another_kind_of_error_blames_none() -> None:
    error = ValueError("labels/Xid.txt: GPU is lost")
    assert ending_of(error, None, rank=0, attempt=1).message.reason == Reason.TRAINER_ERROR


def reported(rank: int, code: int, outcome: str, reason: Reason, at: float = 100.0, waited: bool = False) -> RankEnd:
    said = {"outcome": outcome, "reason": reason, "attempt": 1, "rank": rank, "waited": waited}
    message = TerminationMessage.model_validate(said)
    return RankEnd(rank, code, at, RankReport(exit_code=code, at=at, message=message))


def silent(rank: int, code: int, at: float = 100.0, **more: Any) -> RankEnd:
    return RankEnd(rank, code, at, None, **more)


def aborted(rank: int, error: str, at: float = 100.0) -> RankEnd:
    """A rank that c10d's watchdog ended."""
    said = (
        f"INFO step 7\n[PG ID 0 Rank {rank}] Process group watchdog thread terminated with exception: {error}\nframe #0"
    )
    return silent(rank, -6, at, said=said)


def waited(rank: int, at: float) -> RankEnd:
    return reported(rank, 1, "failed", Reason.PEER_LOST, at, waited=True)


ECC = "uncorrectable ECC error encountered"
LOST = "NCCL error: remote process exited or there was a network error, NCCL version 2.27.3"
DONE_0 = reported(0, 0, "done", Reason.COMPLETED)
STOPPED_0 = reported(0, 143, "stopped", Reason.STOPPED)
STOPPED_1 = reported(1, 143, "stopped", Reason.STOPPED)
ECHO_0 = reported(0, 1, "failed", Reason.PEER_LOST, at=99.5)
ERROR_1 = reported(1, 1, "failed", Reason.TRAINER_ERROR, at=100.2)
DEVICE_1 = reported(1, 1, "failed", Reason.ACCELERATOR_FAILED, at=100.2)
FROZEN = MissedHeartbeat(300.0, "forward", 77)
PERMANENT_0 = reported(0, 78, "permanent", Reason.PAIR_MISMATCH, at=99.0)


@pytest.mark.parametrize(
    ("ends", "facts", "code", "reason", "rank"),
    [
        ([DONE_0], {}, 0, Reason.COMPLETED, 0),
        ([STOPPED_0, STOPPED_1], {}, 143, Reason.STOPPED, 0),
        ([STOPPED_0, ERROR_1], {}, 1, Reason.TRAINER_ERROR, 1),
        ([DONE_0, ERROR_1], {}, 1, Reason.TRAINER_ERROR, 1),
        ([ECHO_0, ERROR_1], {}, 1, Reason.TRAINER_ERROR, 1),
        ([ECHO_0, DEVICE_1], {}, 1, Reason.ACCELERATOR_FAILED, 1),
        ([ECHO_0, silent(1, -9)], {}, 137, Reason.PROCESS_KILLED, 1),
        ([ECHO_0, silent(1, -9)], {"oom_killed": True}, 137, Reason.OUT_OF_MEMORY, 1),
        ([PERMANENT_0, silent(1, -15)], {}, 78, Reason.PAIR_MISMATCH, 0),
        ([PERMANENT_0, ERROR_1], {}, 78, Reason.PAIR_MISMATCH, 0),
        # Killed by torchrun's agent 30 s after this node lost its peer on another node.
        ([ECHO_0, silent(1, -9, at=130)], {}, 1, Reason.PEER_LOST, 0),
        # The launcher ended a rank without a heartbeat, for which the others had waited, or which a stop waited for.
        ([waited(0, at=99.5), silent(1, -9, at=130, missed=FROZEN)], {}, 1, Reason.STALLED, 1),
        ([silent(0, -9, missed=FROZEN)], {"stop_requested": True}, 1, Reason.STALLED, 0),
        # All have waited for each other: the gang has stalled. Another node's rank may know better.
        ([waited(0, at=99.7), waited(1, at=99.5)], {}, 1, Reason.STALLED, 1),
        ([waited(0, at=99.7), waited(1, at=99.5)], {"world_size": 4}, 1, Reason.PEER_LOST, 1),
        ([ECHO_0, waited(1, at=99.7)], {"world_size": 4}, 1, Reason.PEER_LOST, 1),
        ([ECHO_0, waited(1, at=99.7)], {}, 1, Reason.STALLED, 1),
        ([waited(0, at=99.5), ERROR_1], {}, 1, Reason.TRAINER_ERROR, 1),
        # SIGTERM met ranks that were still importing.
        ([silent(0, -15), silent(1, -15)], {"stop_requested": True}, 143, Reason.STOPPED, None),
        ([STOPPED_0, silent(1, -15)], {"stop_requested": True}, 143, Reason.STOPPED, None),
        # Killed at the end of the grace period: with steps to lose it is no stop that has committed everything.
        ([silent(0, -9), silent(1, -9)], {"stop_requested": True}, 143, Reason.STOPPED, None),
        ([silent(0, -9), silent(1, -9, stepped=True)], {"stop_requested": True}, 137, Reason.PROCESS_KILLED, 0),
        ([silent(0, -11)], {}, 139, Reason.TRAINER_ERROR, 0),
        ([silent(0, -6)], {}, 134, Reason.PEER_LOST, 0),
        ([silent(0, -6)], {"world_size": 1}, 134, Reason.TRAINER_ERROR, 0),
        # The one whose device failed, whoever was aborted first.
        ([aborted(0, LOST), aborted(1, f"CUDA error: {ECC}", at=101)], {}, 134, Reason.ACCELERATOR_FAILED, 1),
        ([aborted(0, LOST), aborted(1, f"Cuda failure 214 '{ECC}'")], {}, 134, Reason.ACCELERATOR_FAILED, 1),
        ([ECHO_0, aborted(1, "CUDA error: device-side assert triggered")], {}, 134, Reason.TRAINER_ERROR, 1),
        ([aborted(0, LOST), aborted(1, "CUDA error: out of memory")], {}, 134, Reason.OUT_OF_MEMORY, 1),
        ([aborted(0, LOST), aborted(1, "Cuda failure 2 'out of memory'")], {}, 134, Reason.OUT_OF_MEMORY, 1),
        ([aborted(0, LOST), aborted(1, "CUDA error: CUBLAS_STATUS_ALLOC_FAILED")], {}, 134, Reason.OUT_OF_MEMORY, 1),
        ([aborted(0, LOST), ERROR_1], {}, 1, Reason.TRAINER_ERROR, 1),
        ([aborted(0, LOST), aborted(1, LOST)], {}, 134, Reason.PEER_LOST, 0),
        ([aborted(0, LOST)], {"world_size": 4}, 134, Reason.PEER_LOST, 0),
        ([silent(0, -7)], {}, 135, Reason.TRAINER_ERROR, 0),
        ([silent(0, 5)], {}, 5, Reason.TRAINER_ERROR, 0),
        # These codes promise what only a report can.
        ([silent(0, 0)], {}, 1, Reason.TRAINER_ERROR, 0),
        ([silent(0, 78)], {}, 1, Reason.TRAINER_ERROR, 0),
        ([silent(0, 143)], {}, 1, Reason.TRAINER_ERROR, 0),
    ],
)
def test_the_rank_that_failed_first_is_blamed_and_never_an_echo(
    ends: list[RankEnd], facts: dict[str, Any], code: int, reason: Reason, rank: int | None
) -> None:
    given = {"attempt": 1, "world_size": 2, "stop_requested": False, "oom_killed": False, **facts}
    for order in (ends, ends[::-1]):
        ending = conclude(order, **given)
        assert (ending.exit_code, ending.message.reason, ending.message.rank) == (code, reason, rank)


def test_a_signal_is_told_by_name() -> None:
    ending = conclude([silent(0, -signal.SIGBUS)], attempt=1, world_size=1, stop_requested=False, oom_killed=False)
    assert "SIGBUS" in ending.message.message
    assert "/dev/shm" in ending.message.message


AN_END = """
import sys
from pathlib import Path
from distill_api.reasons import Reason
from distill_api.errors import Permanent
from distill_trainer.process.rank.files import RankFiles
from distill_trainer.process.launcher.termination import write_termination_message
from distill_trainer.process.outcome import RankReport, ending_of
folder = Path(sys.argv[1])
with open(folder / "any", "w") as file:
    assert file.encoding != "utf-8"
ending = ending_of(Permanent(Reason.CONFIG_INVALID, "\\u6570.yaml \\u2026"), None, rank=0, attempt=1)
write_termination_message(folder / "termination-log", ending.message)
report = RankReport(exit_code=78, at=1.0, message=ending.message)
RankFiles(folder, 0).write_report(report)
assert RankFiles(folder, 0).report() == report
"""


def test_an_end_is_told_in_utf8_whatever_the_locale(tmp_path: Path) -> None:
    ascii_only = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    subprocess.run([sys.executable, "-c", AN_END, str(tmp_path)], env=os.environ | ascii_only, check=True, timeout=120)
    message = TerminationMessage.model_validate_json((tmp_path / "termination-log").read_bytes())
    assert message.message == "数.yaml …"
