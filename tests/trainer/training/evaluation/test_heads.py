"""Validation of heads other than YOLO26's: one branch with NMS (11), and YOLOv10's two; on one rank and on two.

Ultralytics' val takes the one-to-many branch and NMS whenever a head has that branch, unless nms=False asks for the
one-to-one branch without.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.nn.tasks import DetectionModel

from distill_api.spec.training import Training
from distill_trainer.training.evaluation.validate import ValMetrics, validate
from tests.support.models import CPU, load_dataset, train_data, val_data
from tests.support.ranks.validate import on_ranks

IMGSZ, IMAGES, STEPS = 96, 9, 45
PLACE: dict[str, Any] = {"task": "detect", "imgsz": IMGSZ, "stride": 32, "workers": 0, "device": CPU}
STILL = dict.fromkeys(("mosaic", "hsv_h", "hsv_s", "hsv_v", "translate", "scale", "fliplr"), 0.0)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose two splits are the same images."""
    from digits.generate import generate

    folder = tmp_path_factory.mktemp("heads")
    generate(folder, "detect", {"train": IMAGES, "val": 1}, IMGSZ, seed=0)
    config = folder / "digits.yaml"
    config.write_text(config.read_text().replace("images/val", "images/train"))
    return folder


def learnt_by_heart(architecture: str, root: Path) -> Any:
    """A model that knows the images, so that its metrics are far from 0 and from 1."""
    info = load_dataset(root / "digits.yaml", root, "detect")
    data = train_data(info, Training(imgsz=IMGSZ, batch=IMAGES, workers=0, **STILL))
    torch.manual_seed(0)
    model: Any = DetectionModel(architecture, nc=info.nc, verbose=False)
    model.names, model.args = info.names, get_cfg(overrides={"task": "detect"})
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 0.3
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
    for (batch,) in data.batches(0, STEPS):
        optimizer.zero_grad()
        model.loss(batch | {"img": batch["img"].float() / 255})[0].sum().backward()
        optimizer.step()
    return model


@pytest.mark.parametrize(("architecture", "branches"), [("yolo11n.yaml", 1), ("yolov10n.yaml", 2)])
def test_metrics_of_every_head_are_ultralytics_own(
    architecture: str, branches: int, root: Path, tmp_path: Path
) -> None:
    model = learnt_by_heart(architecture, root)
    weights = tmp_path / "best.pt"
    torch.save({"model": model, "train_args": {"task": "detect", "imgsz": IMGSZ}}, weights)
    assert (getattr(model.model[-1], "one2one_cv3", None) is not None) == (branches == 2)
    arguments = {"data": str(root / "digits.yaml"), "imgsz": IMGSZ, "batch": 2, "device": "cpu", "plots": False}
    expected = YOLO(weights).val(**arguments, verbose=False, project=str(tmp_path), name="val").results_dict

    known = YOLO(weights).model.float()
    known.args = get_cfg(overrides={"task": "detect"})
    info = load_dataset(root / "digits.yaml", root, "detect")

    def ours(**training: Any) -> ValMetrics:
        return validate(known, val_data(info, Training(imgsz=IMGSZ, **training), batch=2))

    if branches == 2:
        without = YOLO(weights).val(**arguments, nms=False, verbose=False, project=str(tmp_path), name="e2e")
        found = ours(nms=False)
        assert found.results == pytest.approx(without.results_dict, abs=1e-3)
        assert found.map > 0.05
        assert found.results != pytest.approx(expected, abs=1e-3), "both heads answer alike; the test proves nothing"
    found = ours()
    assert found.results == pytest.approx(expected, abs=1e-3)
    assert 0.05 < found.map < 0.999
    first, second = on_ranks(2, weights, root, "detect", tmp_path / "report")
    assert first["results"] == second["results"] == found.results
