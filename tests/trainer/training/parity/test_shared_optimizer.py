"""MuSGD on several ranks, each of which iterates on a share of the matrices, against one rank that does all of it."""

from pathlib import Path

import pytest

from tests.support.ranks.optimizer_steps import run_optimizers


@pytest.mark.parametrize("ranks", [2, 3])
def test_shared_steps_are_those_of_one_rank_bit_by_bit(ranks: int, tmp_path: Path) -> None:
    (alone,) = run_optimizers(tmp_path / "alone", 1)
    shared = run_optimizers(tmp_path / "shared", ranks)
    assert [rank["digests"] for rank in shared] == [alone["digests"]] * ranks
    first, *rest = zip(*(rank["multiplied"] for rank in shared), strict=True)
    assert list(first) == [alone["multiplied"][0]] * ranks, "the first step makes the momenta"
    fair = alone["multiplied"][1] / ranks
    assert all(multiplied < 1.4 * fair for step in rest for multiplied in step), (rest, fair)
