"""Rank 0 computes the first weights, and the others wait for it for as long as it makes progress."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.training import inheriting
from tests.support.ranks.inherit_slowly import on_ranks


def test_ranks_wait_longer_than_a_collective_while_rank_0_fits(tmp_path: Path) -> None:
    found = on_ranks(2, tmp_path / "report", stall_timeout=8.0, pause=0.04)
    assert [one.get("error") for one in found] == [None, None]
    assert found[0]["digest"] == found[1]["digest"]
    assert found[0]["images"] == found[1]["images"] == 2
    assert found[1]["seconds"] > 8.0 > timeouts(8.0).collective


@pytest.mark.parametrize("requested", [False, True])
def test_a_stop_while_weights_are_fitted_is_left_to_the_watchdog(requested: bool) -> None:
    phases: list[str] = []
    watchdog, stop = SimpleNamespace(beat=phases.append), SimpleNamespace(requested=requested)
    context: Any = SimpleNamespace(watchdog=watchdog, stop=stop)
    inheriting._Progress(context, torch.device("cpu"))()
    assert bool(phases) is not requested
