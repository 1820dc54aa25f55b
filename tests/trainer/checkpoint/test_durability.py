"""Checkpoints under real kills, older attempts, full and read-only file systems: whole, older, or loudly refused."""

import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.layout import committed_steps
from distill_trainer.checkpoint.format.manifest import read_manifest, read_verified
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store.commit import Commit, commit
from distill_trainer.checkpoint.store.fence import Fence, read_fence
from distill_trainer.checkpoint.store.storage import clear_temporaries
from distill_trainer.training.saving.commits import Commits
from tests.support.checkpoints.opener import Events, Opener, events, save
from tests.support.machine.leaving_out import leave_out
from tests.support.machine.syscalls import slow_fsync


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Opener]:
    """Opens checkpointers on the test's directory."""
    opener = Opener(tmp_path / "checkpoints")
    yield opener
    opener.close()


def test_an_older_attempt_that_still_lives_can_commit_nothing(open_at: Opener) -> None:
    old = open_at(attempt=1)
    save(old, 1)
    new = open_at(attempt=2)
    with pytest.raises(Retryable, match="attempt 2 of this job has started") as caught:
        save(old, 5)

    assert caught.value.reason is Reason.SUPERSEDED
    assert committed_steps(new.directory) == [1]
    assert not list(new.directory.glob("*.tmp"))
    save(new, 2)
    assert committed_steps(new.directory) == [1, 2]
    with pytest.raises(Retryable, match="attempt 2 of this job has started"):
        open_at(attempt=1)


def test_of_two_processes_of_one_attempt_only_the_later_one_commits(open_at: Opener) -> None:
    first, second = open_at(attempt=1), open_at(attempt=1)
    with pytest.raises(Retryable, match="attempt 1 of this job was started again") as caught:
        save(first, 5)
    assert caught.value.reason is Reason.SUPERSEDED
    with pytest.raises(Retryable, match="was started again"):
        first.check_fence()
    save(second, 2)
    assert committed_steps(open_at.directory) == [2]


def test_an_old_writer_that_a_new_attempt_finds_in_mid_commit_is_fenced(
    open_at: Opener,
) -> None:
    old = open_at(attempt=1)
    save(old, 1)
    assert old.writer_pid is not None
    for step in range(10, 16):
        old.snapshot({"weight": torch.zeros(3_000_000)}, step)
        time.sleep(random.uniform(0, 0.02))
        os.kill(old.writer_pid, signal.SIGSTOP)
        new = open_at(attempt=step)
        before = committed_steps(old.directory)
        os.kill(old.writer_pid, signal.SIGCONT)
        try:
            old.wait()
        except Retryable as error:
            refused = error
        else:
            refused = None  # it had ended before it was stopped
        if refused is not None:
            assert refused.reason is Reason.SUPERSEDED
            assert committed_steps(old.directory) == before
        assert not list(old.directory.glob("*.tmp"))
        new.close()
        old.close()
        old = open_at(attempt=step)
        assert old.writer_pid is not None


def test_leftovers_of_dead_attempts_are_cleared_away(open_at: Opener) -> None:
    save(open_at(), 1)
    directory = open_at.directory
    (directory / "step-9.a1.tmp").mkdir()
    (directory / "step-9.a1.tmp" / "tensors.bin").write_bytes(b"x")
    (directory / "trash-1").mkdir()
    open_at(attempt=2)

    assert sorted(path.name for path in directory.iterdir()) == ["execution-2", "fence", "step-1"]
    fence = read_fence(directory)
    assert fence is not None
    assert fence.attempt == 2


def living_writer(checkpointer: Checkpointer, killed: int | None) -> int:
    """Process id of the writer once the one that was killed is replaced."""
    deadline = time.monotonic() + 30
    while (pid := checkpointer.writer_pid) == killed:
        assert time.monotonic() < deadline, f"the killed writer {killed} is not replaced"
        time.sleep(0.001)
    assert pid is not None
    return pid


def test_a_killed_writer_is_replaced_and_its_order_done_again(open_at: Opener) -> None:
    checkpointer, killed = open_at(keep=50), None
    for step in range(1, 9):
        # Where the last one was killed after its commit, the order goes to a process that is already dead.
        checkpointer.snapshot({"weight": torch.full((1_000_000,), float(step))}, step)
        killed = living_writer(checkpointer, killed)
        time.sleep(random.uniform(0, 0.01))
        os.kill(killed, signal.SIGKILL)
        assert checkpointer.wait(30) == step
    loaded = checkpointer.newest()

    assert loaded is not None
    assert (loaded.step, loaded.fallbacks) == (8, 0)
    assert committed_steps(checkpointer.directory) == list(range(1, 9))


def test_the_writer_ignores_the_signals_that_stop_the_training(open_at: Opener) -> None:
    checkpointer = open_at()
    save(checkpointer, 1)
    pid = checkpointer.writer_pid
    assert pid is not None
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    save(checkpointer, 2)

    assert checkpointer.writer_pid == pid


RANK = """
    import sys, torch
    from datetime import datetime
    from pathlib import Path
    from distill_trainer.checkpoint.checkpointer import Checkpointer
    class Events:
        def checkpoint_committed(self, step, at, seconds): print(step, flush=True)
        def checkpoint_stalled(self, seconds): pass
        def checkpoint_failed(self): pass
        def checkpoint_fell_back(self, why): print("fell back", why, flush=True)
    checkpointer = Checkpointer(
        Path(sys.argv[1]), uid="uid", attempt=int(sys.argv[2]), keep=3, is_writer=True, events=Events()
    )
    loaded = checkpointer.newest()
    step = loaded.step if loaded else 0
    if loaded: assert bool((loaded.state["weight"] == step).all()), "a mixed checkpoint"
    print("resumed", step, flush=True)
    while True:
        step += 1
        checkpointer.snapshot({"weight": torch.full((400_000,), float(step))}, step)
"""


def test_sigkill_of_the_rank_at_any_moment_loses_no_committed_step(tmp_path: Path) -> None:
    told = 0
    for attempt in range(1, 7):
        rank = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(RANK), str(tmp_path / "c"), str(attempt)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert rank.stdout is not None
        first = rank.stdout.readline().split()
        assert first[0] == "resumed", first
        assert int(first[1]) >= told
        rank.stdout.readline()
        time.sleep(random.uniform(0, 0.1))
        rank.kill()
        told = max([told, *(int(line) for line in rank.stdout.read().split())])
        rank.wait()
    assert told > 6


def test_a_commit_in_flight_is_finished_although_the_rank_is_killed(tmp_path: Path) -> None:
    script = """
        import os, signal, sys, torch
        from pathlib import Path
        from distill_trainer.checkpoint.checkpointer import Checkpointer
        class Events:
            def __getattr__(self, name): return lambda *_: None
        checkpointer = Checkpointer(
            Path(sys.argv[1]), uid="uid", attempt=1, keep=3, is_writer=True, events=Events()
        )
        checkpointer.snapshot({"weight": torch.ones(10_000_000)}, 42)
        os.killpg(os.getpgid(0), signal.SIGKILL)
    """
    rank = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "c")], start_new_session=True
    )
    assert rank.wait() == -signal.SIGKILL
    deadline = time.monotonic() + 20
    while committed_steps(tmp_path / "c") != [42] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert committed_steps(tmp_path / "c") == [42]


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB of its own."""
    volume = tmp_path / "volume"
    volume.mkdir()
    if os.geteuid() != 0 or not shutil.which("mount"):
        leave_out("mounting a small file system needs root; run the tests as root to include this one")
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(volume)], capture_output=True)
    if made.returncode:
        leave_out(f"mounting is not allowed here ({made.stderr.decode().strip()}); run privileged to include this")
    yield volume
    subprocess.run(["umount", str(volume)], check=True)


def test_a_full_volume_is_a_permanent_error_and_older_checkpoints_stay(mounted: Path) -> None:
    checkpointer = Checkpointer(mounted, uid="uid", attempt=1, keep=3, is_writer=True, events=Events())
    save(checkpointer, 1)
    checkpointer.snapshot({"weight": torch.zeros(4_000_000)}, 2)
    with pytest.raises(Permanent, match=r"cannot write .*volume.*No space left on device; enlarge") as caught:
        checkpointer.wait()

    assert caught.value.reason is Reason.STORAGE_FULL
    assert events(checkpointer).failures == 1
    assert sorted(path.name for path in mounted.iterdir()) == ["execution-1", "fence", "step-1"]
    loaded = checkpointer.newest()
    assert loaded is not None
    assert loaded.step == 1
    checkpointer.close()


def test_a_read_only_volume_is_found_before_the_first_step(mounted: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(Permanent, match="Read-only file system; make the checkpoints volume writable") as caught:
        Checkpointer(mounted / "job", uid="uid", attempt=1, keep=3, is_writer=True, events=Events())
    assert caught.value.reason is Reason.STORAGE_READ_ONLY


def test_a_volume_that_becomes_read_only_is_told_at_the_next_commit(mounted: Path) -> None:
    checkpointer = Checkpointer(mounted, uid="uid", attempt=1, keep=3, is_writer=True, events=Events())
    save(checkpointer, 1)
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(Permanent) as caught:
        save(checkpointer, 2)
    assert caught.value.reason is Reason.STORAGE_READ_ONLY
    checkpointer.close()


FENCE = Fence("uid", 1, "holder")
FILE_EVENTS = {"open", "os.mkdir", "os.rename", "os.rmdir", "os.remove", "shutil.rmtree", "ctypes.call_function"}


def _commit_again(directory: Path, content: bytes, killed_at: int) -> bool:
    """Commit step 7 with `content` in a child that is killed before its `killed_at`-th touch of a file; was it?"""
    child = os.fork()
    if child == 0:
        touched = 0

        def count(event: str, _arguments: object) -> None:
            nonlocal touched
            if event in FILE_EVENTS:
                touched += 1
                if touched == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(count)
        files = {layout.TENSORS: memoryview(content), layout.STRUCTURE: memoryview(b"")}
        try:
            commit(Commit(directory, FENCE, 7, Versions("2"), keep=1), files, lambda: datetime.now(UTC))
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, -signal.SIGKILL)
    return code != 0


def _readable(directory: Path) -> bytes:
    (step,) = committed_steps(directory)
    path = layout.readable(directory, step)
    return bytes(read_verified(path, layout.TENSORS, read_manifest(path).files[layout.TENSORS]))


@pytest.mark.parametrize("atomically", [True, False])
def test_a_kill_while_a_step_is_committed_again_leaves_one_of_both_states(
    tmp_path: Path, atomically: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not atomically:
        monkeypatch.setattr("distill_trainer.checkpoint.store.commit.exchange", lambda *_: False)
    assert not _commit_again(tmp_path, b"0", killed_at=0)
    for killed_at in range(1, 200):
        before, new = _readable(tmp_path), str(killed_at).encode()
        killed = _commit_again(tmp_path, new, killed_at)
        assert _readable(tmp_path) in (before, new)
        if not killed:
            break
    assert killed_at > 15
    assert _readable(tmp_path) == new
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("step-") and path.name != "step-7"]


def test_a_commit_is_good_although_an_old_checkpoint_cannot_be_deleted(
    open_at: Opener, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    save(open_at(keep=1), 1)
    open_at.close()

    def busy(path: Path) -> None:
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(shutil, "rmtree", busy)  # as on NFS while another client has a file of it open
    fence = read_fence(open_at.directory)
    assert fence is not None
    files = {layout.TENSORS: memoryview(b"2"), layout.STRUCTURE: memoryview(b"")}
    commit(Commit(open_at.directory, fence, 2, Versions("2"), keep=1), files, lambda: datetime.now(UTC))
    assert committed_steps(open_at.directory) == [2]
    assert "cannot delete" in caplog.text

    left = Checkpointer(open_at.directory, uid="uid", attempt=2, keep=1, is_writer=True, events=Events())
    left.close()
    assert list(open_at.directory.glob("trash-*"))
    monkeypatch.undo()
    open_at(attempt=3)
    assert sorted(path.name for path in open_at.directory.iterdir()) == ["execution-3", "fence", "step-2"]


def test_commits_longer_than_the_interval_do_not_hold_up_the_training(open_at: Opener) -> None:
    checkpointer, progress = open_at(), SimpleNamespace(step=0)
    state = SimpleNamespace(collect=lambda: {"step": progress.step}, progress=progress)
    commits = Commits(checkpointer, state, lambda: 0.01)  # type: ignore[arg-type]
    longest = 0.0
    with slow_fsync(checkpointer.writer_pid, "100ms"):  # of which a commit has five
        for progress.step in range(1, 101):
            time.sleep(0.02)
            began = time.monotonic()
            if commits.due():
                commits.commit()
            longest = max(longest, time.monotonic() - began)
    commits.commit_and_wait()
    assert longest < 0.1
    assert 2 <= len(events(checkpointer).committed) <= 10
    loaded = checkpointer.newest()
    assert loaded is not None
    assert loaded.step == loaded.state["step"] == 100


def test_a_commit_that_never_ends_ends_the_training_and_not_in_silence(open_at: Opener) -> None:
    checkpointer, progress = open_at(), SimpleNamespace(step=1)
    state = SimpleNamespace(collect=lambda: {"step": progress.step}, progress=progress)
    commits = Commits(checkpointer, state, lambda: 0.0, hung_after=1.0)  # type: ignore[arg-type]
    with slow_fsync(checkpointer.writer_pid, "1000s"):
        assert commits.due()
        commits.commit()
        assert not commits.due()
        time.sleep(1)
        with pytest.raises(Retryable, match=r"rank 0 has waited 1 s in phase checkpoint for a commit to") as caught:
            commits.due()
    assert caught.value.reason is Reason.STALLED


def test_what_an_interrupted_write_has_left_is_cleared_away(tmp_path: Path) -> None:
    for name in ("best.pt", ".best.pt.0123abcd.tmp", ".mine.tmp"):
        (tmp_path / name).touch()
    clear_temporaries(tmp_path)
    clear_temporaries(tmp_path / "absent")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".mine.tmp", "best.pt"]
