"""Which epochs are validated, and what early stopping makes of the others."""

from types import SimpleNamespace
from typing import Any

import pytest

from distill_trainer.training.evaluation.epoch_end import Evaluation, validates
from distill_trainer.training.evaluation.validate import ValMetrics
from distill_trainer.training.saving.state import TrainingProgress


@pytest.mark.parametrize(
    ("epochs", "period", "expected"),
    [
        (4, 1, [1, 2, 3, 4]),
        (5, 2, [2, 4, 5]),
        (6, 3, [3, 6]),
        (3, 9, [3]),
        (3, None, [3]),
    ],
)
def test_every_nth_epoch_and_the_last_are_validated(epochs: int, period: int | None, expected: list[int]) -> None:
    assert [epoch for epoch in range(1, epochs + 1) if validates(epoch, epochs, period)] == expected


class Scripted(Evaluation):
    """An evaluation of a rank other than 0, whose fitness is known in advance."""

    def _validate_student(self) -> ValMetrics:
        fitness = {3: 0.5, 6: 0.4, 9: 0.6, 12: 0.3, 15: 0.2, 18: 0.1}[self.progress.epochs_finished + 1]
        return ValMetrics(fitness, fitness, 0.0, 0.0, fitness, {}, {}, {}, 1, 0.0)


@pytest.mark.parametrize(("patience", "stops_after"), [(0, 18), (2, 6), (3, 6), (4, 15), (6, 15), (7, 18)])
def test_patience_counts_epochs_also_those_without_validation(patience: int, stops_after: int) -> None:
    progress, told = TrainingProgress(), []
    parts: dict[str, Any] = {
        "plan": SimpleNamespace(epochs=18),
        "state": SimpleNamespace(
            progress=progress,
            task=SimpleNamespace(student_model=SimpleNamespace(args=SimpleNamespace(patience=patience))),
        ),
        "data": SimpleNamespace(environment=SimpleNamespace(is_main=False)),
        "observer": SimpleNamespace(epoch_finished=lambda _, validation: told.append(validation is not None) or {}),
        "context": None,
        "commits": None,
    }
    evaluation = Scripted(**parts, half=False, period=3)
    while progress.epochs_finished < 18 and not progress.stopped_early:
        evaluation.end_epoch()
    assert progress.epochs_finished == stops_after
    assert told == [False, False, True] * (stops_after // 3)
    assert progress.best_epoch == (3 if stops_after == 6 else 9)
