"""What several ranks compute together, against one rank that does all the work, and against themselves resumed."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.support.ranks.steps import run_gang


@pytest.fixture(scope="module")
def one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One rank, four shards."""
    return run_gang(tmp_path_factory.mktemp("gang") / "one", 1)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks, two shards each."""
    return run_gang(tmp_path_factory.mktemp("gang") / "two", 2)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ranks: the first has two shards, the others one each."""
    return run_gang(tmp_path_factory.mktemp("gang") / "three", 3)


def state(run: Path, step: int = 3) -> dict[str, Any]:
    return dict(torch.load(run / f"state-{step}.pt", weights_only=True))


def report(run: Path) -> dict[str, Any]:
    return dict(json.loads((run / "report.json").read_text()))


def assert_same_training(ours: Path, theirs: Path, step: int, tolerance: float) -> None:
    found, expected = state(ours, step), state(theirs, step)
    for part in ("student", "projector", "ema"):
        for name, value in (expected[part] or {}).items():
            if value.is_floating_point():
                difference = (found[part][name] - value).abs().max()
                assert difference <= tolerance * value.abs().max().clamp_min(1e-2), f"{part} {name}"


@pytest.mark.parametrize("world_size", ["two", "three"])
def test_the_number_of_ranks_does_not_change_the_training(
    one: Path, world_size: str, request: pytest.FixtureRequest
) -> None:
    """Weights, averages, running statistics, in double precision."""
    several = request.getfixturevalue(world_size)
    assert_same_training(several, one, step=1, tolerance=1e-12)
    assert_same_training(several, one, step=3, tolerance=1e-9)
    for ours, theirs in zip(report(several)["results"], report(one)["results"], strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=1e-9)


def test_the_training_moves_every_part(one: Path) -> None:
    """Guards the comparison above against being true of runs in which nothing happens."""
    first, last = state(one, 1), state(one, 3)
    moved = [
        (last[part][name] - value).abs().max() > 1e-7
        for part in ("student", "projector")
        for name, value in first[part].items()
        if value.is_floating_point() and value.ndim == 4
    ]
    assert sum(moved) > 0.9 * len(moved)


@pytest.mark.parametrize("world_size", ["one", "two", "three"])
def test_only_student_and_projector_are_trained(world_size: str, request: pytest.FixtureRequest) -> None:
    found = report(request.getfixturevalue(world_size))
    assert found["replicated"] == ["projector", "student_model"]
    assert found["optimized_elsewhere"] == 0
    assert found["teacher_parameters"] == 0
    assert found["teacher_unchanged"]


def test_a_saved_state_holds_no_teacher(one: Path) -> None:
    saved = state(one)
    assert set(saved) == {"student", "projector", "ema", "ema_updates", "optimizer", "scaler", "progress"}
    assert saved["ema_updates"] == 3
    assert not any("teacher" in name for part in ("student", "projector", "ema") for name in saved[part])


def test_one_ranks_wish_to_stop_reaches_all_at_the_same_step(three: Path) -> None:
    assert [result["stop"] for result in report(three)["results"]] == [False, False, True]


def test_three_ranks_resume_bitwise(three: Path, tmp_path: Path) -> None:
    """With more than two summands the order of addition shows: DDP's buckets must be the same from the first step."""
    resumed = run_gang(tmp_path / "resumed", 3, state=three / "state-1.pt")
    assert_bitwise(state(resumed), state(three))


ENDING: dict[str, Any] = {"steps": 6, "end": 3, "nbs": 16}
"""Distillation ends while the gradients of step 2 wait for those of step 3; the optimizer moves at steps 1, 3 and 5."""


@pytest.fixture(scope="module")
def ending(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three ranks whose distillation ends half way."""
    return run_gang(tmp_path_factory.mktemp("gang") / "ending", 3, **ENDING)


def test_the_end_of_distillation_does_not_depend_on_the_number_of_ranks(ending: Path, tmp_path: Path) -> None:
    alone = run_gang(tmp_path / "alone", 1, **ENDING)
    assert_same_training(ending, alone, step=4, tolerance=1e-9)
    assert not report(ending)["replica_lives"]
    for found in map(report, (ending, alone)):
        assert found["replicated"] == ["projector", "student_model"]
        assert found["trained"] == ["student_model"]
        assert [result["losses"]["dis_loss"] > 0 for result in found["results"]] == [True] * 3 + [False] * 3


@pytest.mark.parametrize("step", [2, 4])
def test_three_ranks_resume_bitwise_around_the_end_of_distillation(ending: Path, step: int, tmp_path: Path) -> None:
    resumed = run_gang(tmp_path / "resumed", 3, state=ending / f"state-{step}.pt", **ENDING)
    found = state(resumed, 6)
    assert found["projector"] is None
    assert_bitwise(found, state(ending, 6))


def assert_bitwise(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for part in ("student", "projector", "ema"):
        for name, expected in (theirs[part] or {}).items():
            assert torch.equal(ours[part][name], expected), f"{part} {name}"
    assert ours["optimizer"]["state"].keys() == theirs["optimizer"]["state"].keys()
    for number, values in theirs["optimizer"]["state"].items():
        for name, expected in values.items():
            assert torch.equal(torch.as_tensor(ours["optimizer"]["state"][number][name]), torch.as_tensor(expected))


BALANCED: dict[str, Any] = {"share": 0.5, "steps": 5, "end": 4}
"""Distillation is balanced against the task's gradient, with a loss on boxes beside it, and ends after step 4."""


@pytest.fixture(scope="module")
def balanced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_gang(tmp_path_factory.mktemp("gang") / "balanced", 3, **BALANCED)


def test_a_balanced_training_does_not_depend_on_the_number_of_ranks(balanced: Path, tmp_path: Path) -> None:
    alone = run_gang(tmp_path / "alone", 1, **BALANCED)
    assert_same_training(balanced, alone, step=2, tolerance=1e-9)
    ours, theirs = state(balanced, 3)["balance"], state(alone, 3)["balance"]
    torch.testing.assert_close(ours["averages"], theirs["averages"], rtol=1e-6, atol=0)
    assert (ours["averages"][:, :2] > 0).all()
    assert "balance" not in state(balanced, 5)


@pytest.mark.parametrize("step", [2, 4])
def test_three_balanced_ranks_resume_bitwise(balanced: Path, step: int, tmp_path: Path) -> None:
    resumed = run_gang(tmp_path / "resumed", 3, state=balanced / f"state-{step}.pt", **BALANCED)
    assert_bitwise(state(resumed, 5), state(balanced, 5))


SCALED: dict[str, Any] = {"scale": 2.0**127, "steps": 11}
"""The largest power of two in fp32: first overflows halve it, later it grows back to where gradients overflow."""


def test_overflows_and_the_loss_scale_do_not_depend_on_the_number_of_ranks(tmp_path: Path) -> None:
    one, two, three = (report(run_gang(tmp_path / str(ranks), ranks, **SCALED))["results"] for ranks in (1, 2, 3))
    told = [[(step["skipped"], step["scale"]) for step in results] for results in (one, two, three)]
    assert told[1] == told[0]
    assert told[2] == told[0]
    skipped, scales = zip(*told[0], strict=True)
    assert skipped[0]
    grown = [step for step, (before, after) in enumerate(pairwise(scales), 1) if after > before]
    assert True in skipped[grown[0] :], "the scale has grown to where it overflows again"
    for ours, theirs in zip(three, one, strict=True):
        assert ours["losses"] == pytest.approx(theirs["losses"], rel=0.05)
