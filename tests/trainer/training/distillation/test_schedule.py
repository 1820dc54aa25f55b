"""What the distillation loss weighs at each step, and when it ends."""

from itertools import pairwise
from typing import Any, get_args

import pytest

from distill_api.spec.fields import Distillation
from distill_trainer.training.distillation.schedule import SCHEDULES, WeightSchedule, weight_schedule
from tests.support.models import job_spec

STEPS = 4  # per epoch


def schedule(teacher: bool = True, **distillation: Any) -> WeightSchedule:
    spec = job_spec(training={"epochs": 10, "close_mosaic": 3, "batch": 4}, distillation={"weight": 2.0} | distillation)
    return weight_schedule(spec if teacher else spec.model_copy(update={"teacher": None}), STEPS)


def test_every_schedule_of_the_contract_exists() -> None:
    assert set(SCHEDULES) == set(get_args(Distillation.model_fields["schedule"].annotation))


def test_a_constant_weight_stays_to_the_last_step() -> None:
    weight = schedule()
    assert {weight.at(step) for step in range(40)} == {2.0}
    assert not weight.over(39)
    assert weight.over(40)


@pytest.mark.parametrize(
    ("until", "end"),
    [
        ({"epochs": 1}, 4),
        ({"epochs": 10}, 40),
        ({"fraction": 0.5}, 20),
        ({"fraction": 1 / 3}, 13),
        ({"fraction": 0.001}, 1),
        ({"closeMosaic": True}, 28),
        ({"minImprovement": 0.03}, 40),
        ({"minImprovement": 0.03, "epochs": 5}, 20),
    ],
)
def test_a_stopped_weight_is_whole_until_its_end_and_zero_from_there(until: dict[str, Any], end: int) -> None:
    weight = schedule(schedule="stop", until=until)
    assert [weight.at(step) for step in range(40)] == [2.0] * end + [0.0] * (40 - end)
    assert [weight.over(step) for step in range(40)] == [False] * end + [True] * (40 - end)


@pytest.mark.parametrize(("until", "end"), [(None, 40), ({"epochs": 5}, 20)])
def test_a_cosine_falls_to_zero_at_its_end(until: dict[str, Any] | None, end: int) -> None:
    weight = schedule(schedule="cosine", until=until)
    values = [weight.at(step) for step in range(40)]
    assert values[0] == 2.0
    assert values[end // 2] == pytest.approx(1.0)
    assert values[end // 4] == pytest.approx(1 + 2**-0.5)
    assert all(a > b > 0 for a, b in pairwise(values[:end]))
    assert values[end:] == [0.0] * (40 - end)


@pytest.mark.parametrize("job", [{"weight": 0}, {"teacher": False}])
def test_with_nothing_to_distil_it_is_over_before_it_begins(job: dict[str, Any]) -> None:
    weight = schedule(**job)
    assert weight.over(0)
    assert weight.at(0) == 0
