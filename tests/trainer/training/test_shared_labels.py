"""Rank 0 scans, the others wait for it outside the process group: patiently while it works, not when it is stuck."""

from pathlib import Path
from shutil import copytree
from types import SimpleNamespace
from typing import Any

import pytest

from distill_trainer.data.config import read_dataset
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.training.parallel.labels import SharedLabels
from tests.support.ranks.open_labels import on_ranks


@pytest.fixture
def root(make_digits: Any, tmp_path: Path) -> Path:
    return Path(copytree(make_digits("detect"), tmp_path / "data"))


def test_ranks_wait_longer_than_a_collective_while_rank_0_works(root: Path, tmp_path: Path) -> None:
    """64 files, each of which takes rank 0 a quarter of a second, with a stall timeout of eight seconds."""
    found = on_ranks(3, root, tmp_path / "labels", tmp_path / "report", stall_timeout=8.0, pause=0.25)
    assert {one["images"] for one in found} == {24}
    assert len({one["digest"] for one in found}) == 1
    assert min(one["after"] for one in found) > 8.0 > timeouts(8.0).collective
    again = on_ranks(2, root, tmp_path / "labels", tmp_path / "again", stall_timeout=600.0, pause=0.0)
    assert {one["digest"] for one in again} == {found[0]["digest"]}


def test_a_rank_0_that_is_stuck_is_told_by_those_who_wait(root: Path, tmp_path: Path) -> None:
    waiting = on_ranks(2, root, tmp_path / "labels", tmp_path / "report", stall_timeout=8.0, pause=600.0)
    assert waiting[1]["waited for"] == "rank 0 has not yet listed or scanned the labels"
    assert waiting[1]["phase"] == "rendezvous"
    assert waiting[0] | {"after": 0} == {"waited for": None, "phase": "scanning the labels", "after": 0}


def test_an_invalid_label_ends_every_rank_with_the_same_error(root: Path, tmp_path: Path) -> None:
    (root / "labels/train/000007.txt").write_text("10 .5 .5 .1 .1\n")
    found = on_ranks(3, root, tmp_path / "labels", tmp_path / "report", stall_timeout=600.0, pause=0.0)
    assert {(one["error"], one["reason"]) for one in found} == {("Permanent", "DatasetInvalid")}
    assert {one["message"].split("000007.txt ")[1] for one in found} == {
        "line 1: class 10 is out of range; the data set has classes 0 to 9; correct the line or add the class to names"
    }


@pytest.mark.parametrize("requested", [False, True])
def test_a_stop_while_labels_are_scanned_is_left_to_the_watchdog(root: Path, tmp_path: Path, requested: bool) -> None:
    """It ends a rank that shows no progress, when a third of the grace period has passed. There is nothing to lose."""
    phases: list[str] = []
    context: Any = SimpleNamespace(
        env=TorchrunEnv.from_environ({}),
        files=SimpleNamespace(labels=tmp_path / "labels"),
        watchdog=SimpleNamespace(beat=phases.append),
        stop=SimpleNamespace(requested=requested),
        checkpointer=SimpleNamespace(check_fence=lambda: None),
    )
    SharedLabels(context, timeouts(600)).open(read_dataset(root / "digits.yaml", root, "detect"))
    assert ("scanning the labels" in phases) is not requested
