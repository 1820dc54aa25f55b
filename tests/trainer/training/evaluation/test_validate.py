"""Validation over ranks gives what Ultralytics' own val gives, the same on every rank and for any world size."""

import hashlib
import itertools
import multiprocessing
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data import build_dataloader, build_yolo_dataset
from ultralytics.nn.tasks import DetectionModel, OBBModel, PoseModel, SegmentationModel
from ultralytics.utils import nms

from distill_api.errors import Stopped
from distill_api.metrics import TrainerMetric
from distill_api.spec.training import Training
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from distill_trainer.training.evaluation.epoch_end import validate_with_telemetry
from distill_trainer.training.evaluation.validate import SUFFIX, VALIDATORS, validate
from tests.support.machine.processes import ANONYMOUS_SHARED, mapped_file
from tests.support.models import load_dataset, train_data, val_data
from tests.support.ranks.validate import on_ranks

MODEL: dict[str, tuple[type[DetectionModel], str]] = {
    "detect": (DetectionModel, "yolo26n"),
    "segment": (SegmentationModel, "yolo26n-seg"),
    "pose": (PoseModel, "yolo26n-pose"),
    "obb": (OBBModel, "yolo26n-obb"),
}
STILL = dict.fromkeys(("mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)  # fmt: skip
CPU = torch.device("cpu")
IMAGES = 9
"""In batches of 2 that is an odd number of batches with a short last one."""


def learn(root: Path, task: str, steps: int, weights: Path) -> None:
    """Teach a fresh model the validation images by heart, so that its metrics are far from 0 and from 1."""
    info = load_dataset(root / "digits.yaml", root, task)
    training = Training(imgsz=96, batch=IMAGES, workers=0, **STILL)
    data = train_data(info, training)
    torch.manual_seed(0)
    architecture, name = MODEL[task]
    keypoints = {"data_kpt_shape": info.kpt_shape} if task == "pose" else {}
    model = architecture(f"{name}.yaml", nc=info.nc, verbose=False, **keypoints)
    model.names, model.args = info.names, get_cfg(overrides={"task": task})
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    for (batch,) in data.batches(0, steps):
        batch["img"] = batch["img"].float() / 255
        optimizer.zero_grad()
        model.loss(batch)[0].sum().backward()
        optimizer.step()
    torch.save({"model": model, "train_args": {"task": task, "imgsz": 96}}, weights)


@pytest.fixture(scope="module", params=list(MODEL))
def trained(request: pytest.FixtureRequest, make_digits: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """(task, data set whose two splits are the same images, weights that know them)"""
    task: str = request.param
    root = make_digits(task, train=IMAGES, val=1)
    config = root / "digits.yaml"
    config.write_text(config.read_text().replace("images/val", "images/train"))
    weights = tmp_path_factory.mktemp("weights") / "best.pt"
    learn(root, task, 45, weights)
    return task, root, weights


def test_metrics_are_ultralytics_own_for_every_world_size(trained: Any, tmp_path: Path) -> None:
    task, root, weights = trained
    arguments = {"data": str(root / "digits.yaml"), "imgsz": 96, "batch": 2, "device": "cpu", "plots": False}
    expected = YOLO(weights).val(**arguments, verbose=False, project=str(tmp_path), name="val").results_dict
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task})
    info = load_dataset(root / "digits.yaml", root, task)
    alone = validate(model, val_data(info, Training(imgsz=96), batch=2))
    assert alone.results == pytest.approx(expected, abs=1e-3)
    assert 0.05 < alone.map < 0.999
    assert alone.map == alone.results[f"metrics/mAP50-95({SUFFIX[task]})"]
    assert alone.map == pytest.approx(sum(alone.per_class.values()) / len(alone.per_class))
    first, second = on_ranks(2, weights, root, task, tmp_path / "both")
    drawn = {"confusion": first.pop("confusion"), "pictures": first.pop("pictures")}
    assert first == second
    assert first | {"seconds": alone.seconds} == asdict(alone), "the same figures whatever the world size"
    assert drawn == in_figures(weights, root, task), "the same pictures whatever the world size"


def in_figures(weights: Path, root: Path, task: str) -> dict[str, Any]:
    """What pictures are drawn from, and those that are drawn while one rank validates alone."""
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task})
    figures = ValidationFigures()
    data = val_data(load_dataset(root / "digits.yaml", root, task), Training(imgsz=96), batch=2)
    validate(model, data, figures=figures)
    assert figures.confusion is not None
    assert figures.of_rank.problems == []
    pictures = {name: hashlib.sha256(content).hexdigest() for name, content in figures.of_rank.pictures.items()}
    return {"confusion": figures.confusion.matrix.tolist(), "pictures": pictures}


def test_pictures_are_drawn_from_what_ultralytics_draws_from(trained: Any, tmp_path: Path) -> None:
    task, root, weights = trained
    arguments = {"data": str(root / "digits.yaml"), "imgsz": 96, "batch": 2, "device": "cpu", "plots": True}
    theirs = YOLO(weights).val(**arguments, verbose=False, project=str(tmp_path), name="val")
    found = in_figures(weights, root, task)
    assert found["confusion"] == theirs.confusion_matrix.matrix.tolist()
    assert sum(map(sum, found["confusion"])) > 0
    names = {path.name for path in (tmp_path / "val").glob("val_batch*.jpg")}
    assert set(found["pictures"]) == names
    assert len(names) == 6


def test_losses_are_those_of_ultralytics_training(trained: Any) -> None:
    """Ultralytics computes validation losses only while it trains: run its validator as its trainer does."""
    task, root, weights = trained
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task, "imgsz": 96, "batch": 2, "plots": False, "workers": 0})
    info = load_dataset(root / "digits.yaml", root, task)
    images, known = str(root / "images" / "train"), info.as_ultralytics()
    theirs = build_yolo_dataset(model.args, images, 2, known, mode="val", rect=True)
    loader = build_dataloader(theirs, 2, workers=0, shuffle=False, device="cpu")
    found = validate(model, val_data(info, Training(imgsz=96), batch=2))
    trainer = SimpleNamespace(
        ema=SimpleNamespace(ema=model),
        device=CPU,
        data=info.as_ultralytics(),
        amp=False,
        loss_items={name: torch.zeros(()) for name in found.losses},
        stopper=SimpleNamespace(possible_stop=False),
        epoch=0,
        epochs=1,
        world_size=1,
        label_loss_items=lambda losses, prefix: {f"{prefix}/{name}": float(value) for name, value in losses.items()},
    )
    expected = VALIDATORS[task](loader, root / "val", args=vars(model.args))(trainer)
    assert {f"val/{name}": value for name, value in found.losses.items()} == pytest.approx(
        {name: value for name, value in expected.items() if name.startswith("val/")}, abs=1e-4
    )
    assert found.results == pytest.approx({name: expected[name] for name in found.results}, abs=1e-3)
    assert min(value for name, value in found.losses.items() if name in ("box_loss", "cls_loss")) > 0


def test_a_slow_clock_takes_no_detections_away(trained: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ultralytics' NMS gives up the rest of a batch 2 s + 0.05 s per image after its start."""
    task, root, weights = trained
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task})
    data = val_data(load_dataset(root / "digits.yaml", root, task), Training(imgsz=96), batch=IMAGES)
    expected = validate(model, data).results
    hours = itertools.count(step=3600.0)
    monkeypatch.setattr(nms, "time", SimpleNamespace(time=lambda: next(hours)))
    assert validate(model, data).results == expected
    assert next(hours) > 3600, "NMS did not look at the clock"


def test_images_of_validation_come_in_slots(make_digits: Any) -> None:
    """They are larger than imgsz, which Ultralytics pads by half a stride."""
    root = make_digits("detect", train=IMAGES, val=6)
    data = val_data(load_dataset(root / "digits.yaml", root, "detect"), Training(imgsz=96), batch=2)
    data.workers = 2
    with closing(data):
        images = [batch["img"] for batch in data.batches()]
    assert {tuple(image.shape) for image in images} == {(2, 3, 128, 128)}
    assert {mapped_file(image) for image in images} == {ANONYMOUS_SHARED}


def test_every_validation_uses_the_same_workers(make_digits: Any, tmp_path: Path) -> None:
    root = make_digits("detect", train=IMAGES, val=4)
    learn(root, "detect", 3, tmp_path / "weights.pt")
    model = YOLO(tmp_path / "weights.pt").model.float()
    model.args = get_cfg(overrides={"task": "detect"})
    data = val_data(load_dataset(root / "digits.yaml", root, "detect"), Training(imgsz=96), batch=1)
    expected = validate(model, data)
    data.close()
    data.workers = 2
    before = set(multiprocessing.active_children())
    found, workers = [], []
    for _ in range(2):
        found.append(validate(model, data))
        workers.append(set(multiprocessing.active_children()) - before)
    data.close()
    assert set(multiprocessing.active_children()) == before
    assert workers[0] == workers[1]
    assert len(workers[0]) == 2
    assert [(each.results, each.losses) for each in found] == [(expected.results, expected.losses)] * 2


def test_one_rank_asked_to_stop_stops_all_at_the_same_batch(make_digits: Any, tmp_path: Path) -> None:
    root = make_digits()
    learn(root, "detect", 0, tmp_path / "untrained.pt")
    reports = on_ranks(2, tmp_path / "untrained.pt", root, "detect", tmp_path / "report", stop=(1, 1))
    assert reports == [{"interrupted after": 1}] * 2


def test_the_model_is_left_as_it_came(trained: Any) -> None:
    task, root, weights = trained
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task})
    model.train()
    model.end2end = True
    before = {name: value.clone() for name, value in model.state_dict().items()}
    info = load_dataset(root / "digits.yaml", root, task)
    validate(model, val_data(info, Training(imgsz=96), batch=4))
    assert model.training
    assert model.end2end
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_validation_beats_and_its_time_is_told_as_its_phase(make_digits: Any) -> None:
    root = make_digits("detect", train=IMAGES, val=4)
    info = load_dataset(root / "digits.yaml", root, "detect")
    model = DetectionModel("yolo26n.yaml", nc=info.nc, verbose=False)
    model.args = get_cfg(overrides={"task": "detect"})
    metrics = TrainerMetrics(rank=0, world_size=1, checkpoint_interval=60, versions={})
    beats: list[str] = []
    states: list[dict[str, str]] = []
    context: Any = SimpleNamespace(
        metrics=metrics,
        status=SimpleNamespace(update=lambda **fields: states.append(fields)),
        watchdog=SimpleNamespace(beat=beats.append),
        stop=SimpleNamespace(requested=False),
    )
    data = val_data(info, Training(imgsz=96), batch=2)
    found = validate_with_telemetry(model, data, context, half=False, stop_error=lambda: Stopped(0, 0))

    told = metrics.registry.get_sample_value(TrainerMetric.TIME, {"phase": "validation"})
    assert told is not None
    assert told >= found.seconds > 0
    assert states == [{"state": "validating"}]
    assert len(beats) >= data.total_batches
    assert set(beats) == {"validation"}
