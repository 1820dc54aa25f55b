"""What a finished run leaves beside its weights, from real runs: every file is there, is what it says, and is true."""

import base64
import csv
import io
import json
import pickletools
import re
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from ultralytics import YOLO
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.models.yolo.obb import OBBTrainer
from ultralytics.models.yolo.pose import PoseTrainer
from ultralytics.models.yolo.segment import SegmentationTrainer

from distill_api.spec.training import Training
from distill_api.status import Result
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.models.student import build_student, student_source
from distill_trainer.models.weights import save_weights
from distill_trainer.outputs.report.agreement import Compared, Detections, mean_agreement
from distill_trainer.outputs.report.report import Report
from distill_trainer.process.liveness.stop import StopFlag
from tests.support.machine.browser import address_of, headless
from tests.support.models import SUFFIX, job_spec, load_dataset, preprocessed, train_data
from tests.support.ranks import in_process
from tests.support.ranks.in_process import IMGSZ, Volumes

EPOCHS, STEPS_PER_EPOCH = 3, 3
STILL = dict.fromkeys(("mosaic", "scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0.0)
GENTLE = STILL | {"epochs": EPOCHS, "optimizer": "AdamW", "lr0": 0.0003, "warmup_epochs": 0.0}

TRAINERS = {"detect": DetectionTrainer, "segment": SegmentationTrainer, "pose": PoseTrainer, "obb": OBBTrainer}
PICTURES = {
    "results.png", "labels.jpg", "confusion_matrix.png", "confusion_matrix_normalized.png", "BoxPR_curve.png",
    "BoxF1_curve.png", "BoxP_curve.png", "BoxR_curve.png", "val_batch0_labels.jpg", "val_batch0_pred.jpg",
    "val_batch1_labels.jpg", "val_batch1_pred.jpg",
}  # fmt: skip
"""12 images in batches of 8."""


class Ended(Volumes):
    """A plain run, and a distilled one that is compared with it, on images that are both learned and validated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        config = self.root / "data/digits.yaml"
        config.write_text(config.read_text().replace("images/val", "images/train"))
        self.learn_by_heart(self.root / "models/known.pt", steps=50)
        self.plain = self.run("plain", "known.pt", None, training=GENTLE)
        self.distilled = self.distil()

    def learn_by_heart(self, weights: Path, steps: int) -> None:
        """A model that knows the dozen images, so that metrics are far from 0 and from 1."""
        info = load_dataset(self.root / "data/digits.yaml", self.root / "data", "detect")
        arguments = ultralytics_arguments(job_spec(), "detect", IMGSZ)
        model = build_student(student_source(None, "yolo26n.yaml"), info, arguments, seed=0)
        for layer in model.modules():
            if isinstance(layer, torch.nn.BatchNorm2d):
                layer.momentum = 0.3
        data = train_data(info, Training(imgsz=IMGSZ, batch=12, workers=0, **STILL))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.002)
        for (batch,) in data.batches(0, steps):
            optimizer.zero_grad()
            model.loss(preprocessed(batch))[0].sum().backward()
            optimizer.step()
        save_weights(weights, model, train_args=vars(arguments))

    def distil(self, **spec: Any) -> Any:
        """The next attempt of the distilled run."""
        export = {"formats": ["onnx", "torchscript"]}
        return self.run(
            "distilled",
            "known.pt",
            "known.pt",
            training=GENTLE | {"plots": True},
            distillation={"weight": 1.0},
            report={"baseline": "plain"},
            export=export,
            **spec,
        )

    def folder(self, job: str = "distilled") -> Path:
        return self.root / "checkpoints" / job

    def best(self, job: str = "distilled") -> Path:
        return self.folder(job) / "weights/best.pt"

    def report(self) -> Report:
        return Report.model_validate_json((self.folder() / "report.json").read_text())

    def val(self, weights: Path) -> Any:
        data = str(self.root / "data/digits.yaml")
        return YOLO(weights).val(
            data=data, imgsz=IMGSZ, batch=8, device="cpu", plots=False, verbose=False, project=str(self.root / "val")
        )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    return Ended(tmp_path_factory.mktemp("ended"))


def header(path: Path) -> list[str]:
    with path.open() as file:
        return next(csv.reader(file))


def test_every_picture_shows_something_and_there_are_no_others(ended: Ended) -> None:
    folder = ended.folder()
    assert {path.name for path in folder.iterdir() if path.suffix in (".png", ".jpg")} == PICTURES
    for name in PICTURES:
        with Image.open(folder / name) as picture:
            pixels = np.asarray(picture.convert("L"))
        assert min(pixels.shape) >= 64, name
        assert pixels.std() > 5, f"{name} is blank"
    assert not list(folder.rglob("*.tmp"))


def test_without_plots_nothing_is_drawn(ended: Ended) -> None:
    assert not [path for path in ended.folder("plain").rglob("*") if path.suffix in (".png", ".jpg")]
    assert "data:image/jpeg" not in (ended.folder("plain") / "report.html").read_text()
    assert {"report.json", "report.html", "results.csv", "args.yaml", "tensorboard"} <= {
        path.name for path in ended.folder("plain").iterdir()
    }


def test_weights_are_those_of_a_student_that_never_had_a_teacher(ended: Ended) -> None:
    plain, distilled = (torch.load(ended.best(job), weights_only=False) for job in ("plain", "distilled"))
    assert plain.keys() == distilled.keys()
    shapes = [
        {name: (value.shape, value.dtype) for name, value in found["model"].state_dict().items()}
        for found in (plain, distilled)
    ]
    assert shapes[0] == shapes[1]
    sizes = [ended.best(job).stat().st_size for job in ("plain", "distilled")]
    assert sizes[1] == pytest.approx(sizes[0], abs=2000)
    with zipfile.ZipFile(ended.best()) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        words = {word for _, word, _ in pickletools.genops(archive.read(pickled)) if isinstance(word, str)}
    assert not [word for word in words if "projector" in word or "distill_trainer" in word]


def test_metrics_of_the_report_are_those_of_ultralytics_own_val(ended: Ended) -> None:
    report, result = ended.report(), ended.distilled
    assert isinstance(result, Result)
    assert 0.05 < report.models["student"].map < 0.999
    assert result.student_map == report.models["student"].map
    weights = {
        "student": ended.best(),
        "teacher": ended.root / "models/known.pt",
        "baseline": ended.best("plain"),
    }
    assert set(report.models) == set(weights)
    for who, path in weights.items():
        metrics, found = ended.val(path), report.models[who]  # type: ignore[index]
        theirs = (metrics.box.map, metrics.box.map50, metrics.box.mp, metrics.box.mr)
        assert (found.map, found.map50, found.precision, found.recall) == pytest.approx(theirs, abs=1e-3), who
        by_class = {metrics.names[number]: metrics.box.maps[number] for number in metrics.box.ap_class_index}
        assert found.map_by_class == pytest.approx(by_class, abs=1e-3), who


def test_costs_of_the_report_are_those_of_the_files(ended: Ended) -> None:
    report = ended.report()
    for who, path in (("student", ended.best()), ("teacher", ended.root / "models/known.pt")):
        found = report.models[who]  # type: ignore[index]
        model: Any = YOLO(path).model
        model.end2end = False  # Ultralytics validates and predicts with this head, unless it is asked for the other
        _, parameters, _, gflops = model.float().fuse(verbose=False).info(imgsz=IMGSZ)
        assert found.size_mb == path.stat().st_size / 1e6
        assert found.parameters == parameters
        assert found.gflops == pytest.approx(gflops)
        assert found.latency_ms is not None
        assert 0.1 < found.latency_ms < 10_000
    assert report.measured.threads == 1 or report.measured.threads == torch.get_num_threads()
    assert [output.problem for output in report.outputs] == [None] * len(report.outputs)


def test_every_file_that_the_report_names_exists(ended: Ended) -> None:
    named = [name for output in ended.report().outputs for name in output.files]
    assert {"weights/best.onnx", "weights/best.torchscript", "args.yaml", "results.csv", "tensorboard"} <= set(named)
    assert set(named) >= PICTURES
    assert [name for name in named if not (ended.folder() / name).exists()] == []


def test_the_page_says_what_the_report_says_and_needs_no_other_file(ended: Ended) -> None:
    text, report = (ended.folder() / "report.html").read_text(), ended.report()
    for who in ("student", "teacher", "baseline"):
        assert f'<th scope="col">{who}</th>' in text
        assert f"<td>{report.models[who].map:.4f}</td>" in text  # type: ignore[index]
    for name in report.models["student"].map_by_class:
        assert f'<th scope="row">{name}</th>' in text
    assert text.count("<svg") == 5, "classes, mAP, training and validation losses, learning rate"
    assert "<script" not in text
    assert "http" not in text


def test_the_report_says_how_the_run_came_to_be(ended: Ended) -> None:
    report = ended.report()
    assert report.attempt is not None
    assert (report.attempt.number, report.attempt.nodes, report.attempt.ranks) == (1, 1, 1)
    assert report.attempt.seconds.training > 0
    assert report.versions["torch"] == torch.__version__
    assert {"ultralytics", "python"} <= report.versions.keys()
    assert report.spec["teacher"]["model"] == "known.pt"
    assert report.spec["training"]["epochs"] == EPOCHS


def test_pictures_show_what_student_and_teacher_predict(ended: Ended) -> None:
    report, text = ended.report(), (ended.folder() / "report.html").read_text()
    assert report.agreement is not None
    assert report.agreement.images == 12
    both = []
    for path in sorted((ended.root / "data/images/train").iterdir()):
        student, teacher = (
            YOLO(weights).predict(str(path), imgsz=IMGSZ, device="cpu", agnostic_nms=True, verbose=False)[0]
            for weights in (ended.best(), ended.root / "models/known.pt")
        )
        found = [
            Detections(result.boxes.xyxy, result.boxes.cls, torch.zeros(len(result), 4, 2))
            for result in (student, teacher)
        ]
        both.append(Compared(path.name, dict(zip(("student", "teacher"), found, strict=True))))
    assert report.agreement.student == pytest.approx(mean_agreement(both, "student"), abs=1e-6)
    shown = set(re.findall(r"<figcaption>(\d+\.jpg): agreement", text))
    assert shown
    assert shown <= {image.image for image in both}
    for encoded in re.findall(r"data:image/jpeg;base64,([\w+/=]+)", text):
        with Image.open(io.BytesIO(base64.b64decode(encoded))) as picture:
            assert max(picture.size) == 300
    assert text.count("data:image/jpeg") == 3 * text.count('<div class="panels">'), "student, teacher and baseline"


def test_a_browser_shows_the_page_and_asks_for_nothing_else(ended: Ended) -> None:
    with headless() as page:
        page.open(address_of(ended.folder() / "report.html"), 390)
        assert page.complaints() == []
        assert [url for url in page.requests() if not url.startswith("data:")] == [
            address_of(ended.folder() / "report.html")
        ]
        assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tensorboard_shows_results_csv(ended: Ended) -> None:
    events = EventAccumulator(str(ended.folder() / "tensorboard"))
    events.Reload()
    with (ended.folder() / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == EPOCHS
    for column in header(ended.folder() / "results.csv")[1:]:
        shown = [(event.step, event.value) for event in events.Scalars(column)]
        assert shown == [
            (int(row["epoch"]), pytest.approx(float(row[column]), rel=1e-6)) for row in rows if row[column]
        ]


def test_exports_compute_what_the_weights_compute(ended: Ended) -> None:
    onnx.checker.check_model(onnx.load(ended.best().with_suffix(".onnx")))
    image = torch.rand(1, 3, IMGSZ, IMGSZ, generator=torch.Generator().manual_seed(0))
    model: Any = YOLO(ended.best()).model.float().eval()
    model.end2end = False
    with torch.no_grad():
        expected = model(image)[0].numpy()
        traced = torch.jit.load(ended.best().with_suffix(".torchscript"))(image).numpy()
    session = onnxruntime.InferenceSession(str(ended.best().with_suffix(".onnx")), providers=["CPUExecutionProvider"])
    (computed,) = session.run(None, {"images": image.numpy()})
    assert np.allclose(traced, expected, rtol=1e-3, atol=1e-3)
    assert np.allclose(computed, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("task", TRAINERS)
def test_columns_of_results_csv_are_ultralytics_and_the_distillation_loss(task: str, tmp_path: Path) -> None:
    volumes, model = Volumes(tmp_path, task), f"yolo26n{SUFFIX[task]}.yaml"
    arguments = {
        "model": model, "data": str(tmp_path / "data/digits.yaml"), "epochs": 1, "imgsz": IMGSZ, "batch": 4,
        "device": "cpu", "workers": 0, "plots": False, "amp": False, "optimizer": "SGD", "project": str(tmp_path),
        "name": "theirs", "verbose": False,
    }  # fmt: skip
    TRAINERS[task](overrides=arguments).train()
    volumes.run("ours", model, volumes.save_model(model), training={"epochs": 1})
    theirs, ours = (header(path / "results.csv") for path in (tmp_path / "theirs", tmp_path / "checkpoints/ours"))
    assert set(ours) - set(theirs) == {"train/dis_loss", "val/dis_loss"}
    assert [name for name in ours if "dis_loss" not in name] == theirs


def test_another_attempt_at_a_finished_run_only_makes_what_is_missing(ended: Ended) -> None:
    exports = [ended.best().with_suffix(suffix) for suffix in (".onnx", ".torchscript")]
    before = [path.stat().st_ino for path in exports]
    state = ended.final_state("distilled", EPOCHS * STEPS_PER_EPOCH)
    (ended.folder() / "report.html").unlink()
    (ended.folder() / "labels.jpg").unlink()
    exports[1].unlink()
    assert ended.distil() == ended.distilled
    assert exports[0].stat().st_ino == before[0], "an export that is there is kept"
    assert all((ended.folder() / name).exists() for name in ("report.html", "labels.jpg"))
    assert exports[1].exists()
    assert ended.final_state("distilled", EPOCHS * STEPS_PER_EPOCH) == state


def test_outputs_that_a_stop_interrupts_are_made_by_the_next_attempt(
    ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = ended.folder()
    (folder / "confusion_matrix.png").unlink()
    (folder / "report.json").unlink()
    drawn = (folder / "labels.jpg").stat().st_mtime_ns

    class OnceTheMatrixIsDrawn(StopFlag):
        def __init__(self, *_: Any) -> None:
            super().__init__()

        @property
        def requested(self) -> bool:
            return (folder / "confusion_matrix.png").exists()

    with monkeypatch.context() as patched:
        patched.setattr(in_process, "StopAfter", OnceTheMatrixIsDrawn)
        assert ended.distil() == EPOCHS * STEPS_PER_EPOCH, "stopped, with everything committed"
    assert not (folder / "report.json").exists()
    assert (folder / "labels.jpg").stat().st_mtime_ns == drawn, "what comes after the matrix was not begun"
    assert ended.distil() == ended.distilled
    assert ended.report().models["student"].sha256 == ended.distilled.sha256


def test_a_baseline_that_is_not_there_is_said_and_harms_nothing(ended: Ended, caplog: pytest.LogCaptureFixture) -> None:
    result = ended.run("plain", "known.pt", None, training=GENTLE, report={"baseline": "no-such-job"})
    assert result == ended.plain
    (problem,) = (line for line in caplog.messages if "baseline" in line)
    assert "no-such-job is neither a .pt file nor a job" in problem
    report = json.loads((ended.folder("plain") / "report.json").read_text())
    assert [output["problem"] for output in report["outputs"] if output["name"] == "baseline"] == [
        problem.removeprefix("baseline: not compared: ")
    ]
    assert list(report["models"]) == ["student"]
