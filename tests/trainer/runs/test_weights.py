"""best.pt, last.pt and results.csv of runs that validate seldom, are resumed, or crash around the end of an epoch."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from distill_api.metrics import TrainerMetric
from tests.support.ranks.in_process import EPOCHS, STEPS_PER_EPOCH, Volumes

SELDOM = {"epochs": 5, "val_period": 2}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    """Volumes with an undisturbed run of either kind."""
    place = Volumes(tmp_path_factory.mktemp("weights"))
    place.save_model("yolo26s.yaml")
    run(place, "calm")
    run(place, "seldom", training=SELDOM)
    return place


def run(place: Volumes, job: str, **arguments: Any) -> Any:
    return place.run(job, "yolo26n.yaml", "yolo26s.pt", **arguments)


def weights(place: Volumes, job: str, name: str) -> dict[str, torch.Tensor]:
    return dict(YOLO(place.root / "checkpoints" / job / "weights" / name).model.state_dict())


def assert_same_weights(place: Volumes, job: str, calm: str) -> None:
    for name in ("best.pt", "last.pt"):
        ours, theirs = weights(place, job, name), weights(place, calm, name)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items()), name


def test_a_row_has_metrics_where_its_epoch_was_validated(place: Volumes) -> None:
    rows = place.results("seldom")
    assert [bool(row["metrics/mAP50(B)"]) for row in rows] == [False, True, False, True, True]
    assert all(row["train/box_loss"] for row in rows)
    assert weights(place, "seldom", "last.pt").keys() == weights(place, "calm", "last.pt").keys()


def test_metrics_count_the_last_epoch_too(place: Volumes) -> None:
    run(place, "counted")
    assert place.last_metrics.get_sample_value(TrainerMetric.EPOCH) == EPOCHS


@pytest.mark.parametrize("epoch", [1, 2, 3])
def test_a_resumed_run_validates_the_same_epochs(place: Volumes, epoch: int) -> None:
    job = f"resumed-{epoch}"
    assert run(place, job, stop_after=epoch * STEPS_PER_EPOCH, training=SELDOM) >= epoch * STEPS_PER_EPOCH
    run(place, job, training=SELDOM)
    assert place.final_state(job, 5 * STEPS_PER_EPOCH) == place.final_state("seldom", 5 * STEPS_PER_EPOCH)
    assert place.results(job) == place.results("seldom")
    assert_same_weights(place, job, "seldom")


@pytest.mark.parametrize("lost", ["the commit after the weights", "commit and weights"])
def test_a_crash_after_an_epoch_ends_with_the_weights_of_a_calm_run(place: Volumes, lost: str) -> None:
    """The checkpoint from which the run goes on was committed before the epoch's validation."""
    job = "crashed-" + lost.split()[0]
    root = place.root / "checkpoints" / job
    stopped_at = run(place, job, stop_after=STEPS_PER_EPOCH + 1)
    assert stopped_at > STEPS_PER_EPOCH
    shutil.rmtree(root / f"checkpoints/step-{stopped_at}")
    assert (root / f"checkpoints/step-{STEPS_PER_EPOCH}").is_dir()
    if "and weights" in lost:
        shutil.rmtree(root / "weights")
    else:  # weights that no checkpoint knows of
        shutil.copy(place.root / "models/yolo26s.pt", root / "weights/best.pt")
    run(place, job)
    assert place.final_state(job) == place.final_state("calm")
    assert place.results(job) == place.results("calm")
    assert_same_weights(place, job, "calm")
