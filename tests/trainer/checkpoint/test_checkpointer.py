"""Checkpoints on real files: all that goes in comes back, and damage is never mistaken for state."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from distill_api.errors import Permanent, Retryable
from distill_api.reasons import Reason
from distill_trainer.checkpoint.format.layout import committed_steps, damaged_steps
from distill_trainer.training.saving.commits import Commits
from tests.support.checkpoints.opener import Opener, events, save


@pytest.fixture
def open_at(tmp_path: Path) -> Iterator[Opener]:
    """Opens checkpointers on the test's directory."""
    opener = Opener(tmp_path / "checkpoints")
    yield opener
    opener.close()


def test_everything_of_a_state_comes_back_with_type_value_and_strides(open_at: Opener) -> None:
    channels_last = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    state = {
        "model": {"conv": channels_last, "bf16": torch.randn(3, dtype=torch.bfloat16), "none": torch.empty(0, 7)},
        "optimizer": {"state": {0: {"step": torch.tensor(3.0)}, 1: {}}, "param_groups": [{"lr": 0.1, "params": [0]}]},
        "expanded": torch.tensor([1.0, 2.0]).expand(3, 2),
        "rng": (1, (2, b"bytes"), None, True, "text"),
        "count": torch.tensor(12, dtype=torch.int64),
        "flags": torch.tensor([True, False]),
    }
    checkpointer = open_at()
    checkpointer.snapshot(state, 7)
    checkpointer.wait()
    loaded = checkpointer.newest()

    assert loaded is not None
    assert loaded.step == 7
    assert str(loaded.state) == str(state)
    assert torch.equal(loaded.state["model"]["conv"], channels_last)
    assert loaded.state["model"]["conv"].stride() == channels_last.stride()
    assert loaded.state["model"]["bf16"].dtype is torch.bfloat16
    assert isinstance(loaded.state["rng"], tuple)


def test_the_state_may_change_as_soon_as_snapshot_returns(open_at: Opener) -> None:
    weight = torch.ones(2_000_000)
    checkpointer = open_at()
    checkpointer.snapshot({"weight": weight}, 1)
    weight.zero_()
    checkpointer.wait()
    loaded = checkpointer.newest()

    assert loaded is not None
    assert bool((loaded.state["weight"] == 1).all())


def test_equal_states_make_equal_files_whatever_was_saved_before(open_at: Opener) -> None:
    """The memory is used again, and the gaps between tensors belong to none of them."""
    checkpointer = open_at()
    files = []
    for step, before in ((1, None), (3, torch.full((500,), 7, dtype=torch.uint8))):
        if before is not None:
            checkpointer.snapshot({"larger": before}, step - 1)
        checkpointer.snapshot({"a": torch.ones(3), "b": torch.ones(5)}, step)
        checkpointer.wait()
        files.append((checkpointer.directory / f"step-{step}" / "tensors.bin").read_bytes())
    assert files[0] == files[1]


def test_what_could_not_be_read_back_safely_is_refused_by_its_place(open_at: Opener) -> None:
    with pytest.raises(TypeError, match=r"state\['rng'\]\[1\] is a PosixPath"):
        open_at().snapshot({"rng": [1, Path("x")]}, 1)


def test_the_newest_of_keep_checkpoints_stay(open_at: Opener) -> None:
    checkpointer = open_at(keep=2)
    save(checkpointer, 1, 2, 10, 3)

    assert committed_steps(checkpointer.directory) == [3, 10]
    assert checkpointer.committed_step == 3


def _truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def _flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("file", ["manifest.json", "structure.pt", "tensors.bin"])
@pytest.mark.parametrize("harm", [_truncate, _flip_a_bit, Path.unlink])
def test_a_damaged_checkpoint_is_set_aside_and_the_previous_one_is_used(
    open_at: Opener, file: str, harm: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    save(open_at(), 1, 2)
    resumed = open_at(attempt=2)
    harm(resumed.directory / "step-2" / file)
    loaded = resumed.newest()

    assert loaded is not None
    assert (loaded.step, loaded.fallbacks) == (1, 1)
    assert float(loaded.state["weight"][0]) == 1.0
    assert len(events(resumed).fell_back) == 1
    assert "trying the previous one" in caplog.text
    assert damaged_steps(resumed.directory) == [2]
    save(resumed, 2)
    assert committed_steps(resumed.directory) == [1, 2]


def test_training_never_starts_from_zero_beside_unreadable_checkpoints(open_at: Opener) -> None:
    save(open_at(), 1, 2)
    for step in (1, 2):
        _flip_a_bit(open_at.directory / f"step-{step}" / "tensors.bin")
    for attempt in (2, 3):
        with pytest.raises(Permanent, match="no readable checkpoint") as caught:
            open_at(attempt=attempt).newest()
        assert caught.value.reason is Reason.CHECKPOINT_UNREADABLE


def test_a_fresh_directory_has_no_checkpoint(open_at: Opener) -> None:
    assert open_at().newest() is None


def test_a_job_corrected_before_its_first_commit_takes_the_directory_over(open_at: Opener) -> None:
    mistaken = open_at(attempt=3)
    corrected = open_at(uid="corrected", attempt=1)
    save(corrected, 1)
    assert corrected.committed_step == 1
    with pytest.raises(Retryable):
        save(mistaken, 1)


def test_another_jobs_directory_is_refused_and_left_as_it_is(open_at: Opener) -> None:
    save(open_at(), 1)
    with pytest.raises(Permanent, match="has checkpoints of another DistillJob") as caught:
        open_at(uid="other", attempt=9)
    assert caught.value.reason is Reason.CHECKPOINT_UNREADABLE

    (open_at.directory / "fence").unlink()
    with pytest.raises(Permanent, match="another DistillJob"):
        open_at(uid="other", attempt=9).newest()


def test_other_ranks_touch_nothing(open_at: Opener) -> None:
    checkpointer = open_at(writer=False)
    assert checkpointer.snapshot({"weight": torch.ones(3)}, 1) == 0.0
    assert checkpointer.wait() == 0
    assert not checkpointer.directory.exists()


def test_the_time_that_the_training_stands_still_for_commits_is_told(open_at: Opener) -> None:
    clock = iter(range(100))
    spent: list[float] = []
    state = SimpleNamespace(collect=lambda: {"weight": torch.ones(3)}, progress=SimpleNamespace(step=4))
    clocked = lambda: float(next(clock))  # noqa: E731
    commits = Commits(open_at(), state, lambda: 60.0, on_blocked=spent.append, clock=clocked)  # type: ignore[arg-type]
    assert not commits.due()
    assert spent == []
    commits.commit_and_wait()

    assert spent == [1.0, 1.0]
    assert commits.committed_step == 4


@pytest.mark.parametrize("left", ["older", "damaged"])
def test_what_is_left_of_the_checkpoints_is_not_called_lost(open_at: Opener, left: str) -> None:
    with pytest.raises(Permanent, match="has committed step 7") as lost:
        open_at(committed_before=7)
    assert lost.value.reason is Reason.CHECKPOINTS_LOST
    assert not open_at.directory.exists(), "nothing was changed"
    save(open_at(), 5)
    if left == "damaged":
        (open_at.directory / "step-5").rename(open_at.directory / "step-5.damaged")
    assert open_at(attempt=2, committed_before=7).execution == 2
