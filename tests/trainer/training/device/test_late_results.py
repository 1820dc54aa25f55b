"""A training whose results are read late is the one whose results are read at once, bit for bit; on CPUs, where both
can run."""

import io
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from distill_api.errors import Retryable, Stopped
from distill_trainer.training import loop
from tests.support.looped import STEPS, STEPS_PER_EPOCH, Run


@cache
def trained(late: bool, **options: Any) -> Run:
    """A training that has ended by itself."""
    return Run(late, **options).train()


def thaw(state: bytes) -> dict[str, Any]:
    return dict(torch.load(io.BytesIO(state), weights_only=True))


def assert_bitwise(ours: bytes, theirs: bytes) -> None:
    found, expected = thaw(ours), thaw(theirs)
    leaves = torch.utils._pytree.tree_leaves_with_path
    for (path, value), (other, wanted) in zip(leaves(found), leaves(expected), strict=True):
        assert path == other
        same = torch.equal(value, wanted) if isinstance(wanted, Tensor) else repr(value) == repr(wanted)  # nan is nan
        assert same, torch.utils._pytree.keystr(path)


VARIANTS: dict[str, dict[str, Any]] = {
    "calm": {"poisoned": ()},
    "scaled, an optimizer step in every step": {"scaled": True, "nbs": 2, "commits_often": False},
    "balanced": {"share": 0.5, "scaled": True},
    "NAdam": {"optimizer": "NAdam"},
    "ends early": {"min_improvement": 0.99, "poisoned": ()},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_late_results_change_no_bit_of_any_state(variant: str) -> None:
    """Non-finite gradients in the first optimizer step, which creates the optimizer's state, and in a later one."""
    options = {"poisoned": (1, 5)} | VARIANTS[variant]
    late, at_once = trained(True, **options), trained(False, **options)
    assert list(late.commits) == list(at_once.commits)
    for step, state in at_once.commits.items():
        assert_bitwise(late.commits[step], state)
    assert repr(late.results) == repr(at_once.results)  # nan is nan
    skipped = [number for number, result in enumerate(at_once.results) if result.skipped]
    assert skipped == list(options["poisoned"])
    assert late.state.progress.distillation_ended is (variant == "ends early")


@pytest.mark.parametrize("commits_often", [True, False])
def test_a_late_stop_is_one_step_later_whoever_has_read_before(commits_often: bool) -> None:
    """A rank that commits has read the result at once; it must stop where the others do."""
    calm, late = trained(False, nbs=2), Run(True, nbs=2)
    late.stops_with, late.commits_often = 3, commits_often
    with pytest.raises(Stopped) as stopped:
        late.train()
    assert stopped.value.step == stopped.value.committed_step == 5
    assert_bitwise(late.commits[5], calm.commits[5])


def test_at_once_a_stop_is_obeyed_in_its_own_step() -> None:
    run = Run(False, nbs=2)
    run.stops_with = 3
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert stopped.value.step == stopped.value.committed_step == 4


def test_a_late_stop_at_the_end_of_an_epoch_needs_no_other_step() -> None:
    run = Run(True, nbs=2)
    run.stops_with = STEPS_PER_EPOCH - 1
    with pytest.raises(Stopped) as stopped:
        run.train()
    assert stopped.value.step == stopped.value.committed_step == STEPS_PER_EPOCH


@pytest.mark.parametrize("step", [4, 8])
def test_a_late_training_resumes_bitwise(step: int) -> None:
    calm = trained(True, poisoned=(1, 5), optimizer="NAdam")
    resumed = Run(True, poisoned=(1, 5), optimizer="NAdam", saved=thaw(calm.commits[step])).train()
    assert_bitwise(resumed.commits[STEPS], calm.commits[STEPS])


@pytest.mark.parametrize("commits_often", [True, False])
def test_all_ranks_give_up_at_the_same_step(commits_often: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "MAX_SKIPPED_STEPS", 3)
    run = Run(True, nbs=2, poisoned=tuple(range(1, STEPS)))
    run.commits_often = commits_often
    with pytest.raises(Retryable, match="not finite in 3 consecutive steps up to step 4"):
        run.train()
    assert list(run.commits) == ([1] if commits_often else [])
