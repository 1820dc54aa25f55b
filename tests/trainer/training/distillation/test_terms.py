"""The terms of a job: built in, from an installed package, or neither."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_api.spec.distillation import Distillation
from distill_trainer.training.distillation.losses.registry import LOSSES, DistillationLoss
from distill_trainer.training.distillation.losses.sl2 import sl2
from distill_trainer.training.distillation.terms import ULTRALYTICS, check_task, terms_of


def of(**fields: object) -> Distillation:
    return Distillation.model_validate(fields)


def test_the_short_form_is_one_loss_with_the_weight_of_the_schedule() -> None:
    assert terms_of(of()) == ULTRALYTICS
    (term,) = terms_of(of(loss="cwd", weight=2.0))
    assert (term.loss, term.weight, term.name) == (LOSSES["cwd"], 1.0, None)


def test_each_term_has_its_losss_weight_or_its_own_and_a_name() -> None:
    found = terms_of(of(terms=[{"loss": "sl2"}, {"loss": "iou", "weight": 0.5}]))
    assert [(term.weight, term.name) for term in found] == [(6.0, "dis_sl2_loss"), (0.5, "dis_iou_loss")]


def test_a_loss_that_does_not_exist_is_named_with_those_that_do() -> None:
    with pytest.raises(Permanent, match="no distillation loss mgd; this image has bckd, cwd, iou") as refused:
        terms_of(of(terms=[{"loss": "mgd"}]))
    assert refused.value.reason == Reason.CONFIG_INVALID


@pytest.mark.parametrize(("loss", "task", "what"), [("oks", "pose", "keypoints"), ("mask", "segment", "mask")])
def test_what_one_task_has_alone_is_taught_to_its_models(loss: str, task: str, what: str) -> None:
    terms = terms_of(of(terms=[{"loss": "iou"}, {"loss": loss}]))
    check_task(terms, task)
    check_task(ULTRALYTICS, "detect")
    with pytest.raises(Permanent, match=f"task is detect, which has no {what}: remove {loss} from the terms"):
        check_task(terms, "detect")


def test_a_share_needs_a_loss_on_the_neck() -> None:
    with pytest.raises(Permanent, match="add such as spkd"):
        terms_of(of(terms=[{"loss": "iou"}], share=0.5))


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package with one loss, one thing that is none, and one that cannot be imported."""
    info = tmp_path / "my_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.0\n")
    points = "mine = my_losses:MINE\nnot-one = my_losses:PLAIN\nbroken = my_losses_that_are_missing:MINE"
    (info / "entry_points.txt").write_text(f"[distilljob.losses]\n{points}\n")
    module = ModuleType("my_losses")
    module.MINE, module.PLAIN = DistillationLoss(sl2, weight=3.0), sl2  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "my_losses", module)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.usefixtures("installed")
def test_an_installed_loss_is_found_by_its_name() -> None:
    (term,) = terms_of(of(terms=[{"loss": "mine"}]))
    assert (term.loss.compare, term.weight, term.name) == (sl2, 3.0, "dis_mine_loss")


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "why"), [("not-one", "my_losses:PLAIN is not a DistillationLoss"), ("broken", "No module named")]
)
def test_an_installed_loss_that_is_none_ends_the_job_with_words(name: str, why: str) -> None:
    with pytest.raises(Permanent, match=why):
        terms_of(of(terms=[{"loss": name}]))
