"""A run that goes on from its checkpoint with a corrected spec: the new values hold, and nothing else is mixed."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_api.spec.rules.corrections import definition
from distill_trainer.training.saving.corrected import check_distillation, check_optimizer
from tests.support.models import job_spec
from tests.support.ranks.in_process import STEPS, STEPS_PER_EPOCH, Volumes


def test_more_epochs_and_another_learning_rate_hold_from_the_resume_on(tmp_path: Path) -> None:
    place = Volumes(tmp_path)
    models = "yolo26n.yaml", place.save_model("yolo26s.yaml")
    assert place.run("longer", *models, stop_after=STEPS_PER_EPOCH + 1) == STEPS_PER_EPOCH + 2
    place.run("longer", *models, training={"epochs": 3, "lr0": 0.001, "lrf": 0.1})
    rates = [float(row["lr/pg0"]) for row in place.results("longer")]
    assert len(rates) == 3
    assert rates[0] > 0.003, "the first epoch was trained with lr0 0.01"
    assert rates[1:] == pytest.approx([0.001 * (2 / 3 * 0.9 + 0.1), 0.001 * (1 / 3 * 0.9 + 0.1)])

    with pytest.raises(
        Permanent, match=f"checkpoint of step {STEPS_PER_EPOCH * 3} is of another run: training.batch 4"
    ):
        place.run("longer", *models, training={"epochs": 3, "lr0": 0.001, "lrf": 0.1, "batch": 2})


def saved_by(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    return {"optimizer": optimizer.state_dict(), "progress": {"step": STEPS}}


def test_an_optimizer_that_auto_would_choose_anew_is_refused() -> None:
    weights = [nn.Parameter(torch.zeros(2))]
    adam, sgd = torch.optim.AdamW(weights), torch.optim.SGD(weights, lr=0.1, momentum=0.9, nesterov=True)
    check_optimizer(saved_by(adam), adam)
    check_optimizer(saved_by(sgd), sgd)
    for before, now in ((adam, sgd), (sgd, adam)):
        with pytest.raises(Permanent, match=f"auto chooses {type(now).__name__}") as refused:
            check_optimizer(saved_by(before), now)
        assert refused.value.reason == Reason.CHECKPOINT_MISMATCH


@pytest.mark.parametrize(("step", "refused"), [(49, False), (50, True), (99, True), (100, False)])
def test_distillation_that_has_ended_does_not_begin_again(step: int, refused: bool) -> None:
    distillation = {"schedule": "stop", "until": {"fraction": 0.5}}
    before, now = (job_spec(distillation=distillation, training={"epochs": epochs}) for epochs in (10, 20))
    recorded = definition(before)
    check_distillation(before, recorded, step, 10)
    if refused:
        with pytest.raises(Permanent, match="would begin again"):
            check_distillation(now, recorded, step, 10)
    else:
        check_distillation(now, recorded, step, 10)
