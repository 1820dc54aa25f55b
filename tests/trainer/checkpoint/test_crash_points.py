"""A commit that is cut off, fails or is overtaken at any of its system calls, one after the other, and power cuts."""

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from distill_api.errors import TrainerError
from distill_trainer.checkpoint.format import encoding, layout
from distill_trainer.checkpoint.format.versions import Versions
from distill_trainer.checkpoint.reading import load_newest
from distill_trainer.checkpoint.store.commit import Commit, Fenced, commit
from distill_trainer.checkpoint.store.fence import raise_fence, read_fence
from distill_trainer.checkpoint.store.storage import discard, probe
from tests.support.checkpoints.power_cut import Disk, frozen, materialise
from tests.support.machine.syscalls import NOISE, Call, calls, go_on, needs_strace, outcome, wait_until_stopped, watched

COMMITTED, FENCED, FAILED = 0, 3, 4


@pytest.fixture(autouse=True)
def _strace() -> None:
    needs_strace()


def state_of(value: int) -> dict[str, memoryview]:
    """The files of a small state that is recognised by its value."""
    plan = encoding.plan({"weight": torch.full((20,), float(value))})
    memory = torch.zeros(plan.size, dtype=torch.uint8)
    encoding.views(memory, plan.specs)[0].copy_(plan.tensors[0])
    tensors, structure = memory.numpy().tobytes(), plan.structure_bytes()
    return {layout.TENSORS: memoryview(tensors), layout.STRUCTURE: memoryview(structure)}


def committing(directory: Path, step: int, value: int) -> Callable[[], int]:
    """Work that commits a state, as whoever holds the fence now: its exit code says what came of it."""
    files, fence = state_of(value), read_fence(directory)
    assert fence is not None

    def work() -> int:
        try:
            commit(Commit(directory, fence, step, Versions("2"), keep=1), files, lambda: datetime.now(UTC))
        except Fenced:
            return FENCED
        except (OSError, TrainerError):
            return FAILED
        return COMMITTED

    return work


def opening(directory: Path, attempt: int) -> Callable[[], int]:
    """Work that does what a new attempt does first."""

    def work() -> int:
        try:
            probe(directory)
            raise_fence(directory, "uid", attempt)
            for path in layout.leftovers(directory):
                discard(path)
        except (OSError, TrainerError):
            return FAILED
        return COMMITTED

    return work


def found(directory: Path) -> tuple[int, int] | None:
    """Step and value of the newest checkpoint; fails when a damaged one had to be stepped over."""
    loaded = load_newest(directory, "uid", lambda why: pytest.fail(f"fell back: {why}"))
    if loaded is None:
        return None
    (value,) = set(loaded.state["weight"].tolist())
    return loaded.step, int(value)


class Volume:
    """A directory with step 7 of value 7 in it, by attempt 1, that can be brought back to how it began."""

    def __init__(self, root: Path) -> None:
        self.origin, self.directory = root / "origin", root / "volume" / "checkpoints"
        self.log = root / "calls"
        assert opening(self.directory, 1)() == COMMITTED
        assert committing(self.directory, 7, 7)() == COMMITTED
        shutil.copytree(self.directory, self.origin)

    def again(self) -> None:
        """Back to the beginning."""
        shutil.rmtree(self.directory)
        shutil.copytree(self.origin, self.directory)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A volume at its beginning."""
    return Volume(tmp_path)


CASES = {
    "a new step, which replaces the old one": (8, True),
    "the same step again": (7, True),
    "the same step where names cannot be swapped": (7, False),
}


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, volume: Volume, monkeypatch: pytest.MonkeyPatch) -> tuple[Volume, int]:
    """A volume, and the step that is committed to it with value 8."""
    step, swaps = CASES[request.param]
    if not swaps:
        monkeypatch.setattr("distill_trainer.checkpoint.store.commit.exchange", lambda *_: False)
    return volume, step


def boundaries(volume: Volume, work: Callable[[], int]) -> Iterator[Call]:
    """Every call of the work that could make a difference, each time with the volume as at the beginning."""
    made = [call for call in calls(work, volume.log) if call.name not in NOISE]
    assert {"write", "fsync", "close"} <= {call.name for call in made}
    for call in made:
        volume.again()
        yield call
    volume.again()


def test_a_kill_at_any_call_of_a_commit_leaves_the_old_or_the_new_state(case: tuple[Volume, int]) -> None:
    volume, step = case
    work, seen = committing(volume.directory, step, 8), set()
    for call in boundaries(volume, work):
        code = outcome(work, volume.log, f"{call.name}:signal=KILL:when={call.nth}")
        assert code == -9, call
        seen.add(found(volume.directory))
        assert opening(volume.directory, 2)() == COMMITTED
        assert found(volume.directory) in {(7, 7), (step, 8)}, call
        assert committing(volume.directory, step + 1, 9)() == COMMITTED
        assert found(volume.directory) == (step + 1, 9)
        left = ["execution-2", "fence", f"step-{step + 1}"]
        assert sorted(path.name for path in volume.directory.iterdir()) == left
    assert seen == {(7, 7), (step, 8)}


def test_a_kill_at_any_call_of_a_new_attempts_beginning_loses_nothing(volume: Volume) -> None:
    for left in ("step-9.a1.tmp", "trash-1"):
        (volume.origin / left).mkdir()
    volume.again()
    work = opening(volume.directory, 2)
    for call in boundaries(volume, work):
        assert outcome(work, volume.log, f"{call.name}:signal=KILL:when={call.nth}") == -9, call
        assert found(volume.directory) == (7, 7)
        assert opening(volume.directory, 2)() == COMMITTED
        assert found(volume.directory) == (7, 7)


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EROFS", "ESTALE"])
def test_an_error_of_any_call_of_a_commit_leaves_the_old_or_the_new_state(case: tuple[Volume, int], error: str) -> None:
    volume, step = case
    work, codes = committing(volume.directory, step, 8), set()
    for call in boundaries(volume, work):
        if call.name in ("close", "getdents64"):  # Linux closes a descriptor whatever it answers
            continue
        code = outcome(work, volume.log, f"{call.name}:error={error}:when={call.nth}")
        assert code in (COMMITTED, FAILED), call
        codes.add(code)
        assert found(volume.directory) in ({(step, 8)} if code == COMMITTED else {(7, 7), (step, 8)}), call
        assert committing(volume.directory, step + 1, 9)() == COMMITTED
        assert found(volume.directory) == (step + 1, 9)
    assert codes == {COMMITTED, FAILED}


@pytest.mark.parametrize("attempt", [1, 2])
def test_an_older_life_that_wakes_up_in_its_commit_changes_nothing(case: tuple[Volume, int], attempt: int) -> None:
    """Whether the newer one is the next attempt, or the same one started again."""
    volume, step = case
    work, codes = committing(volume.directory, step, 8), set()
    for call in boundaries(volume, work):
        with watched(work, volume.log, f"{call.name}:signal=STOP:when={call.nth}") as old:
            assert wait_until_stopped(old, volume.log), call
            assert opening(volume.directory, attempt)() == COMMITTED
            before = found(volume.directory)
            assert before in {(7, 7), (step, 8)}
            code = go_on(old)
        codes.add(code)
        assert found(volume.directory) == before, call
        if before == (7, 7):
            assert code in (FENCED, FAILED), call
        assert committing(volume.directory, step, 9)() == COMMITTED
        assert found(volume.directory) == (step, 9)
    assert {COMMITTED, FENCED} <= codes


def test_a_power_cut_at_any_call_leaves_the_old_or_the_new_state(case: tuple[Volume, int], tmp_path: Path) -> None:
    volume, step = case
    disk, checked = Disk(volume.directory), {}
    for call in calls(committing(volume.directory, step, 8), volume.log):
        disk.see(call)
        for tree in disk.after_power_cut():
            if (state := frozen(tree)) not in checked:
                checked[state] = _after_restart(tree, tmp_path / f"state-{len(checked)}")
            assert checked[state] in {(7, 7), (step, 8)}, call
    assert set(checked.values()) == {(7, 7), (step, 8)}
    at_the_end = {checked[frozen(tree)] for tree in disk.after_power_cut()}
    assert at_the_end == {(step, 8)}, "a commit that has returned is lost"
    assert len(checked) >= 10


def test_a_power_cut_right_after_the_first_commit_does_not_lose_it(tmp_path: Path) -> None:
    """The directories themselves are new, too."""
    root = tmp_path / "mount"
    root.mkdir()
    directory = root / "job" / "checkpoints"

    def first() -> int:
        return opening(directory, 1)() or committing(directory, 1, 1)()

    disk = Disk(root)
    for call in calls(first, tmp_path / "calls"):
        disk.see(call)
    for number, tree in enumerate(disk.after_power_cut()):
        place = tmp_path / f"state-{number}"
        materialise(tree, place)
        assert found(place / "job" / "checkpoints") == (1, 1)


def _after_restart(tree: dict, place: Path) -> tuple[int, int] | None:  # type: ignore[type-arg]
    """What the next attempt finds; the files of the state are not kept."""
    materialise(tree, place)
    assert opening(place, 2)() == COMMITTED
    try:
        return found(place)
    finally:
        shutil.rmtree(place)
