"""Result files, such as weights/best.pt, are written by the writer process, in order with the checkpoints."""

import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.checkpoint.format.layout import committed_steps
from tests.support.checkpoints.opener import Opener, events, save


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Opener]:
    """Opens checkpointers on the test's directory."""
    opener = Opener(tmp_path / "checkpoints")
    yield opener
    opener.close()


@contextmanager
def stopped_writer(checkpointer: Checkpointer) -> Iterator[None]:
    """The writer process does nothing inside."""
    pid = checkpointer.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def blocks(work: Callable[[], object]) -> threading.Thread:
    """A thread in which `work` is under way and does not return."""
    thread = threading.Thread(target=work)
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()
    return thread


def test_files_have_the_content_of_the_last_call_once_it_is_waited_for(open_at: Opener, tmp_path: Path) -> None:
    checkpointer, paths = open_at(), [tmp_path / "weights/best.pt", tmp_path / "weights/last.pt"]
    for number in range(10):
        checkpointer.replace_files(dict.fromkeys(paths[number % 2 :], bytes([number]) * (200_000 - number)))
    checkpointer.wait()
    assert paths[0].read_bytes() == bytes([8]) * 199_992
    assert paths[1].read_bytes() == bytes([9]) * 199_991
    assert sorted(os.listdir(tmp_path / "weights")) == ["best.pt", "last.pt"]


def test_files_of_one_call_have_contents_of_their_own(open_at: Opener, tmp_path: Path) -> None:
    checkpointer, shared = open_at(), b"weights" * 10_000
    files = {tmp_path / "best.pt": shared, tmp_path / "last.pt": shared, tmp_path / "results.csv": b"epoch\n1\n"}
    checkpointer.replace_files(files)
    checkpointer.wait()
    assert {path: path.read_bytes() for path in files} == files


def test_training_goes_on_while_files_wait_for_a_commit(open_at: Opener, tmp_path: Path) -> None:
    checkpointer, path = open_at(), tmp_path / "best.pt"
    with stopped_writer(checkpointer):
        checkpointer.snapshot({"weight": torch.ones(3)}, 1)
        began = time.monotonic()
        checkpointer.replace_files({path: b"of step 1"})
        assert time.monotonic() - began < 1
        assert checkpointer.busy
        assert not path.exists()
        next_files = blocks(lambda: checkpointer.replace_files({path: b"newer"}))
    next_files.join()
    checkpointer.wait()
    assert path.read_bytes() == b"newer"
    assert committed_steps(checkpointer.directory) == [1]


def test_no_checkpoint_is_newer_than_files_that_a_crash_can_lose(open_at: Opener, tmp_path: Path) -> None:
    checkpointer, path = open_at(), tmp_path / "best.pt"
    with stopped_writer(checkpointer):
        checkpointer.replace_files({path: b"the best so far"})
        snapshot = blocks(lambda: checkpointer.snapshot({"best": 1}, 7))
        assert not list(checkpointer.directory.glob("step-*"))
    snapshot.join()
    assert path.read_bytes() == b"the best so far"
    checkpointer.wait()
    assert committed_steps(checkpointer.directory) == [7]


def test_a_killed_writer_is_replaced_and_everything_is_done_again(open_at: Opener, tmp_path: Path) -> None:
    checkpointer, path = open_at(), tmp_path / "best.pt"
    pid = checkpointer.writer_pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    checkpointer.snapshot({"weight": torch.ones(3)}, 1)
    checkpointer.replace_files({path: b"new"})
    os.kill(pid, signal.SIGKILL)
    checkpointer.wait(timeout=30)
    assert path.read_bytes() == b"new"
    assert committed_steps(checkpointer.directory) == [1]


@pytest.mark.parametrize("method", ["wait", "snapshot", "replace_files"])
def test_an_error_ends_training_like_one_of_a_commit(open_at: Opener, tmp_path: Path, method: str) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    checkpointer = open_at()
    call: dict[str, Callable[[], object]] = {
        "wait": checkpointer.wait,
        "snapshot": lambda: checkpointer.snapshot({"best": 1}, 7),
        "replace_files": lambda: checkpointer.replace_files({tmp_path / "best.pt": b""}),
    }
    checkpointer.replace_files({tmp_path / "file/best.pt": b"new"})
    with pytest.raises(Retryable, match=r"I/O error at .*file"):
        call[method]()
    assert events(checkpointer).failures == 1
    checkpointer.wait()
    assert committed_steps(checkpointer.directory) == []


def test_an_error_outlives_what_succeeds_after_it(open_at: Opener, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"in the way")
    checkpointer = open_at()
    with stopped_writer(checkpointer):
        checkpointer.snapshot({"best": 1}, 7)
        checkpointer.directory.rename(tmp_path / "gone")
        checkpointer.replace_files({tmp_path / "best.pt": b"new"})
    with pytest.raises(TrainerError, match="checkpoints"):
        checkpointer.wait()
    checkpointer.wait()


def test_a_full_volume_is_permanent(open_at: Opener, tmp_path: Path) -> None:
    checkpointer = open_at()
    pid = checkpointer.writer_pid
    assert pid is not None
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (1000, 1000))
    checkpointer.replace_files({tmp_path / "best.pt": bytes(100_000)})
    with pytest.raises(Permanent, match="enlarge the checkpoints volume") as full:
        checkpointer.wait()
    assert full.value.reason is Reason.STORAGE_FULL
    assert not list(tmp_path.glob("*best.pt*"))


def test_an_older_life_replaces_nothing(open_at: Opener, tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    old = open_at()
    with stopped_writer(old):
        old.replace_files({path: b"old"})
        new = open_at(attempt=2)
        new.replace_files({path: b"new"})
        new.wait()
    with pytest.raises(Retryable, match="attempt 2 of this job has started") as refused:
        old.wait()
    assert refused.value.reason is Reason.SUPERSEDED
    assert path.read_bytes() == b"new"


def test_other_ranks_write_no_files(open_at: Opener, tmp_path: Path) -> None:
    open_at(writer=False).replace_files({tmp_path / "best.pt": b"new"})
    assert os.listdir(tmp_path) == []


def test_files_are_complete_when_the_checkpointer_is_closed(open_at: Opener, tmp_path: Path) -> None:
    checkpointer = open_at()
    save(checkpointer, 1)
    checkpointer.replace_files({tmp_path / "best.pt": bytes(3_000_000)})
    checkpointer.close()
    assert (tmp_path / "best.pt").stat().st_size == 3_000_000
