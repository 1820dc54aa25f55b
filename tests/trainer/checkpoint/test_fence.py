"""Execution numbers: each life of a job gets its own, and of all that run only the last one may commit."""

import json
import multiprocessing
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format import layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.store import commit as committing
from distill_trainer.checkpoint.store.commit import Commit, commit
from distill_trainer.checkpoint.store.fence import Fence, check_fence, raise_fence, read_fence, successor
from distill_trainer.checkpoint.store.storage import discard
from tests.support.machine.syscalls import NOISE, calls, go_on, needs_strace, wait_until_stopped, watched

FILES = {layout.TENSORS: memoryview(b"tensors"), layout.STRUCTURE: memoryview(b"structure")}


def save(directory: Path, fence: Fence, step: int) -> None:
    commit(Commit(directory, fence, step, Versions("2"), keep=9), FILES, lambda: datetime.now(UTC))


def written_by_0_1_0(directory: Path, attempt: int, uid: str = "uid") -> None:
    """The fence of a trainer that counts no executions."""
    directory.mkdir(exist_ok=True)
    content = {"uid": uid, "attempt": attempt, "holder": f"old-{attempt}"}
    (directory / "fence").write_text(json.dumps(content))


def read_by_0_1_0(directory: Path) -> tuple[str, int, str]:
    """The fence as a trainer reads it that counts no executions."""
    content = json.loads((directory / "fence").read_bytes())
    return str(content["uid"]), int(content["attempt"]), str(content.get("holder", ""))


def test_each_life_gets_the_next_number(tmp_path: Path) -> None:
    lives = [raise_fence(tmp_path, "uid", attempt) for attempt in (1, 1, 1, 2, 7, 7)]
    assert [life.execution for life in lives] == [1, 2, 3, 4, 7, 8], "never below the attempt's number"
    assert read_fence(tmp_path) == lives[-1]
    assert [successor(tmp_path, life) for life in lives] == [lives[-1]] * 5 + [None]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["execution-8", "fence"]


def test_numbers_do_not_go_back_when_the_fence_is_lost_or_an_old_trainers(tmp_path: Path) -> None:
    assert raise_fence(tmp_path, "uid", 1).execution == 1
    assert raise_fence(tmp_path, "uid", 1).execution == 2
    written_by_0_1_0(tmp_path, 1)
    assert raise_fence(tmp_path, "uid", 1).execution == 3
    (tmp_path / "fence").unlink()
    assert raise_fence(tmp_path, "uid", 1).execution == 4
    (tmp_path / "execution-4").unlink()
    assert raise_fence(tmp_path, "uid", 1).execution == 5


def test_a_trainer_that_counts_no_executions_reads_the_fence_and_is_fenced(tmp_path: Path) -> None:
    written_by_0_1_0(tmp_path, 3)
    theirs = read_by_0_1_0(tmp_path)
    new = raise_fence(tmp_path, "uid", 3)
    assert read_by_0_1_0(tmp_path) == ("uid", 3, new.holder) != theirs
    assert layout._UNCOMMITTED.fullmatch(layout.uncommitted(tmp_path, 9, 3, new.execution).name)


@pytest.mark.parametrize("attempt", [3, 4])
def test_an_old_trainer_that_raises_the_fence_replaces_a_life(tmp_path: Path, attempt: int) -> None:
    mine = raise_fence(tmp_path, "uid", 3)
    written_by_0_1_0(tmp_path, attempt)
    found = successor(tmp_path, mine)
    assert found is not None
    assert found.attempt == attempt


def test_an_older_attempt_is_refused_before_it_takes_a_number(tmp_path: Path) -> None:
    raise_fence(tmp_path, "uid", 4)
    with pytest.raises(Retryable, match="attempt 4 of this job has started; attempt 3 can no longer commit") as caught:
        raise_fence(tmp_path, "uid", 3)
    assert caught.value.reason is Reason.SUPERSEDED
    assert not (tmp_path / "execution-5").exists()


def test_an_older_attempt_with_a_higher_number_is_refused_by_the_newer_one(tmp_path: Path) -> None:
    """It had checked the fence before the newer attempt raised it, and takes its number after."""
    newer = raise_fence(tmp_path, "uid", 4)
    older = Fence("uid", 3, "older", 9)
    (tmp_path / "execution-9").write_text(json.dumps(vars(older)))
    (tmp_path / "fence").write_text(json.dumps(vars(older)))
    assert successor(tmp_path, newer) is None
    check_fence(tmp_path, "uid", 3)
    with pytest.raises(Retryable, match="attempt 4 of this job has started"):
        raise_fence(tmp_path, "uid", 3)
    assert read_fence(tmp_path) == older, "who is refused leaves the fence as it was"
    save(tmp_path, newer, 1)
    assert raise_fence(tmp_path, "uid", 4).execution == 11


def test_a_number_that_another_life_has_taken_meanwhile_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its claim came after this one had looked for the last number."""
    other, claims = raise_fence(tmp_path, "uid", 1), layout.executions
    (tmp_path / "fence").unlink()
    looks: list[dict[int, Path]] = [{}]
    monkeypatch.setattr(layout, "executions", lambda directory: looks.pop() if looks else claims(directory))
    assert raise_fence(tmp_path, "uid", 1).execution == other.execution + 1


def test_a_life_that_was_slow_to_write_its_fence_does_not_hide_a_later_one(tmp_path: Path) -> None:
    first, second, third = (raise_fence(tmp_path, "uid", 1) for _ in range(3))
    (tmp_path / "fence").write_text(json.dumps(vars(first)))
    assert successor(tmp_path, third) is None
    assert successor(tmp_path, second) == third
    with pytest.raises(committing.Fenced):
        save(tmp_path, second, 1)
    save(tmp_path, third, 1)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"uid": "uid"}'])
def test_a_claim_that_is_being_written_counts_by_its_number(tmp_path: Path, content: str) -> None:
    first, second = raise_fence(tmp_path, "uid", 2), raise_fence(tmp_path, "uid", 2)
    (tmp_path / "execution-4").write_text(content)
    (tmp_path / "fence").write_text(json.dumps(vars(first)))
    assert successor(tmp_path, second) is not None
    assert raise_fence(tmp_path, "uid", 2).execution == 5


@pytest.mark.parametrize("content", ["", "null", "[]", '{"uid": "uid", "attempt": 1, "execution": "x"}'])
def test_a_damaged_fence_is_told(tmp_path: Path, content: str) -> None:
    (tmp_path / "fence").write_text(content)
    with pytest.raises(Permanent, match="is damaged; delete it"):
        raise_fence(tmp_path, "uid", 1)


def test_the_claims_of_another_job_fence_nobody(tmp_path: Path) -> None:
    """Of an earlier job of the name, which failed before its first commit."""
    raise_fence(tmp_path, "earlier", 9)
    mine = raise_fence(tmp_path, "uid", 1)
    assert mine.execution == 10
    assert successor(tmp_path, mine) is None
    (tmp_path / "fence").write_text(json.dumps(vars(Fence("earlier", 9, "x", 9))))
    assert successor(tmp_path, mine) is not None


def test_two_lives_of_an_attempt_do_not_share_an_unfinished_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first one pauses between its look at the fence and its rename."""
    first = raise_fence(tmp_path, "uid", 1)

    def meanwhile(order: Commit) -> None:
        second = raise_fence(tmp_path, "uid", 1)
        for path in layout.leftovers(tmp_path):
            discard(path)
        layout.uncommitted(tmp_path, order.step, 1, second.execution).mkdir()
        monkeypatch.undo()

    monkeypatch.setattr(committing, "_check_fence", meanwhile)
    with pytest.raises(committing.Fenced):
        save(tmp_path, first, 5)
    assert layout.committed_steps(tmp_path) == []


def _claim(directory: Path, together: Callable[[], object], results: "multiprocessing.Queue[int]") -> None:
    together()
    try:
        results.put(raise_fence(directory, "uid", 1).execution)
    except TrainerError as error:
        results.put(0 if error.reason is Reason.SUPERSEDED else -1)


@pytest.mark.parametrize("claimants", [2, 4, 8])
def test_processes_that_start_at_once_get_different_numbers(tmp_path: Path, claimants: int) -> None:
    context = multiprocessing.get_context("fork")
    barrier, results = context.Barrier(claimants), context.Queue()
    processes = [context.Process(target=_claim, args=(tmp_path, barrier.wait, results)) for _ in range(claimants)]
    for process in processes:
        process.start()
    numbers = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join(60)
    assert -1 not in numbers
    counted = [number for number in numbers if number]
    assert len(set(counted)) == len(counted) >= 1
    assert max(counted) == max(layout.executions(tmp_path)), "the last to take a number may commit"


@pytest.mark.parametrize(
    ("sleeper", "waker", "winners"), [(1, 1, {"awake", "asleep"}), (1, 2, {"awake"}), (2, 1, {"asleep"})]
)
def test_a_start_that_pauses_at_any_call_leaves_one_that_may_commit(
    tmp_path: Path, sleeper: int, waker: int, winners: set[str]
) -> None:
    """Both come after an earlier life; the second one starts and is done while the first one is stopped."""
    needs_strace()
    directory, log = tmp_path / "checkpoints", tmp_path / "calls"

    def again() -> None:
        for path in directory.iterdir() if directory.exists() else ():
            path.unlink()
        raise_fence(directory, "uid", 1)

    def start(attempt: int) -> int:
        """0 if it may commit in the end, 3 if it is told that it may not."""
        try:
            mine = raise_fence(directory, "uid", attempt)
        except Retryable:
            return 3
        (directory.parent / f"fence-{attempt}").write_text(json.dumps(vars(mine)))
        return 0

    again()
    made = [call for call in calls(lambda: start(sleeper), log) if call.name not in NOISE]
    seen = set()
    for call in made:
        again()
        with watched(lambda: start(sleeper), log, f"{call.name}:signal=STOP:when={call.nth}") as process:
            if not wait_until_stopped(process, log):
                continue
            try:
                awake: Fence | None = raise_fence(directory, "uid", waker)
            except Retryable:
                awake = None
            code = go_on(process)
        asleep = Fence(**json.loads((tmp_path / f"fence-{sleeper}").read_text())) if code == 0 else None
        assert code in (0, 3), call
        able = [life for life in (awake, asleep) if life is not None and successor(directory, life) is None]
        assert len(able) == 1, (call, awake, asleep)
        numbers = [life.execution for life in (awake, asleep) if life is not None]
        assert len(set(numbers)) == len(numbers), call
        assert able[0].attempt == max(life.attempt for life in (awake, asleep) if life is not None)
        seen.add("awake" if able[0] == awake else "asleep")
    assert seen == winners
