"""spec.distillation.until.minImprovement: which epoch ends distillation, and what the log says of each."""

import math

import pytest

from distill_trainer.training.distillation.improvement import ends, evidence, improvement


@pytest.mark.parametrize(
    ("before", "now", "over"),
    [
        (None, 1.0, False),  # the first epoch
        (1.0, 0.9, False),
        (1.0, 0.971, True),
        (1.0, 1.0, True),
        (1.0, 1.2, True),
        (1.0, math.nan, False),
        (math.inf, 1.0, False),
        (0.0, 0.0, False),
        (1.0, None, False),
    ],
)
def test_the_first_epoch_that_improves_too_little_ends_it(before: float | None, now: float | None, over: bool) -> None:
    assert ends(before, now, 0.03) is over
    assert not ends(before, now, None)


def test_an_improvement_is_a_part_of_what_was() -> None:
    assert improvement(0.5, 0.4) == pytest.approx(0.2)
    assert improvement(0.5, 0.6) == pytest.approx(-0.2)


def test_the_log_says_loss_change_and_cosines() -> None:
    assert evidence(1, None, 0.5, []) == "distillation loss 0.5 in epoch 1"
    assert evidence(2, 0.5, 0.4, [0.12, -0.03]) == (
        "distillation loss 0.4 in epoch 2, 20.0% less than in the epoch before;"
        " cosine of its gradient and the task's at the neck, by level: +0.12, -0.03"
    )
    assert "10.0% more" in evidence(3, 0.4, 0.44, [])
