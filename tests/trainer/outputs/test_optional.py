"""Outputs that fail or are interrupted: one clear line, no half file, and no process left behind."""

import logging
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.nn.tasks import DetectionModel

from distill_api.errors import Permanent, Stopped
from distill_api.pod.run import Directories
from distill_api.spec.outputs import Export
from distill_trainer.models.weights import save_weights
from distill_trainer.outputs.export import export as exporting
from distill_trainer.outputs.export.export import export_weights
from distill_trainer.outputs.optional import OutputProblem, try_output
from distill_trainer.outputs.pictures import draw_labels, draw_results
from distill_trainer.outputs.report.chart import Line, dot_plot, line_chart, nice_ticks, whole_ticks
from distill_trainer.outputs.results import results_csv, with_row
from distill_trainer.outputs.tensorboard import event_files
from distill_trainer.training.evaluation.comparison import Comparison, find_baseline
from tests.support.machine.processes import children, command
from tests.support.models import ALONE, build


def export(best: Path, form: str = "torchscript", check_stop: Any = lambda: None) -> list[str]:
    return export_weights(best, form, Export(formats=[form]), imgsz=64, sha256="0" * 64, check_stop=check_stop)  # type: ignore[list-item]


@pytest.fixture(scope="module")
def best(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = DetectionModel("yolo26n.yaml", nc=2, verbose=False)
    path = tmp_path_factory.mktemp("run") / "weights/best.pt"
    save_weights(path, model, train_args={"imgsz": 64, "task": "detect"})
    return path


def exports() -> set[int]:
    """Processes that export for this one."""
    return {pid for pid in children(os.getpid()) if "outputs.export.process" in command(pid)}


def test_a_stop_ends_an_export_at_once_and_leaves_no_file(best: Path) -> None:
    began = time.monotonic()
    running: list[set[int]] = []

    def stop_soon() -> None:
        running.append(exports())
        if time.monotonic() - began > 1.0:
            raise Stopped(3, 3)

    with pytest.raises(Stopped):
        export(best, check_stop=stop_soon)
    ours = {pid for seen in running for pid in seen}
    assert ours, "the export ran in a process of its own"
    assert not ours & exports()
    assert time.monotonic() - began < 10
    assert len(running) >= 3, "the watchdog hears of it all the time"
    assert os.listdir(best.parent) == ["best.pt"]


def test_an_export_that_fails_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = tmp_path / "best.pt"
    torch.save({"model": None}, broken)
    with caplog.at_level(logging.WARNING):
        made, problem = try_output("torchscript", lambda: export(broken))
    assert made is None
    assert problem
    assert caplog.messages == [f"torchscript: not written: {problem}"]
    assert "\n" not in problem
    assert "Traceback" not in problem
    assert os.listdir(tmp_path) == ["best.pt"]


def test_a_missing_package_is_named_and_nothing_is_installed(best: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnx" else name)
    with pytest.raises(OutputProblem, match=r"the package onnx is missing; install distill-operator\[trainer\]"):
        export(best, "onnx")


def test_events_follow_results_csv_when_a_resumed_run_goes_back(tmp_path: Path) -> None:
    folder, kept = tmp_path / "tensorboard", []
    folder.mkdir()

    def finish(epoch: int, loss: float) -> None:
        nonlocal kept
        kept = with_row(kept, {"epoch": epoch, "time": 1.0, "train/box_loss": loss})
        for path, content in event_files(folder, kept, wall_time=float(epoch)).items():
            path.write_bytes(content)

    def shown() -> list[tuple[int, float]]:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(folder))
        events.Reload()
        return [(event.step, event.value) for event in events.Scalars("train/box_loss")]

    for epoch in (1, 2, 3):
        finish(epoch, loss=epoch)
    finish(2, loss=20.0)
    assert shown() == [(1, 1.0), (2, 20.0)]
    finish(3, loss=30.0)
    (folder / "events.out.tfevents.00000001").unlink()
    finish(4, loss=40.0)
    assert shown() == [(1, 1.0), (2, 20.0), (3, 30.0), (4, 40.0)]
    assert len(os.listdir(folder)) == 4


def test_curves_are_drawn_also_of_epochs_that_were_not_validated(tmp_path: Path) -> None:
    path, kept = tmp_path / "results.csv", []
    for epoch in (1, 2, 3):
        row = {"epoch": epoch, "time": epoch, "train/box_loss": 1.0 / epoch, "train/dis_loss": 2.0 / epoch}
        if epoch == 3:
            row |= {"metrics/mAP50(B)": 0.5, "val/box_loss": 1.0}
        kept = with_row(kept, row)
    path.write_bytes(results_csv(kept))
    assert draw_results(path) == ["results.png"]
    assert (tmp_path / "results.png").stat().st_size > 10_000
    assert sorted(os.listdir(tmp_path)) == ["results.csv", "results.png"]


def test_a_picture_that_cannot_be_drawn_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made, problem = try_output("labels", lambda: draw_labels([], {0: "a"}, tmp_path))
    assert made is None
    assert problem
    assert "\n" not in problem
    assert os.listdir(tmp_path) == []


def test_a_baseline_is_a_job_or_a_file_on_either_volume(tmp_path: Path) -> None:
    volumes = Directories(checkpoints=str(tmp_path / "runs"), models=str(tmp_path / "models"))
    names = ("runs/plain/weights/best.pt", "runs/single.pt", "models/hub/weights/best.pt", "models/old.pt")
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [find_baseline(volumes, name) for name in ("plain", "single.pt", "hub", "old.pt")]
    assert found == [tmp_path / name for name in names]
    with pytest.raises(Permanent, match=r"report.baseline missing is neither a \.pt file nor a job"):
        find_baseline(volumes, "missing")


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (("yolo26n-obb.yaml", "obb"), "the student differ in task (obb and detect)"),
        (("yolov8n.yaml", "detect"), None),
        ("garbage", "cannot be read as a model"),
    ],
    ids=["task", "family", "damaged"],
)
def test_a_baseline_that_cannot_be_compared_is_not_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Any, says: str | None
) -> None:
    path = tmp_path / "other.pt"
    if isinstance(other, str):
        path.write_text(other)
    else:
        save_weights(path, build(*other), train_args={})
    score = object()
    comparison: Any = Comparison(
        data=SimpleNamespace(environment=ALONE), prepared=SimpleNamespace(student=build("yolo26n.yaml")), half=False,
        context=None,
    )  # fmt: skip
    monkeypatch.setattr(Comparison, "score", lambda *_: score)
    found = comparison.score_baseline(
        Directories(checkpoints=str(tmp_path), models=None), "other.pt", lambda: Stopped(0, 0)
    )
    if says is None:
        assert (found.score, found.problem) == (score, None)
    else:
        assert found.score is None
        assert says in found.problem
        assert "\n" not in found.problem


def test_ticks_are_round_and_enclose_the_data() -> None:
    assert nice_ticks(0.0, 0.61) == [0.0, 0.2, 0.4, 0.6, 0.8]
    assert nice_ticks(0.0, 13.2) == [0.0, 5.0, 10.0, 15.0]
    assert nice_ticks(0.0, 0.0) == [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert whole_ticks(1, 4) == [1, 2, 3, 4]
    assert whole_ticks(1, 300)[0] == 1
    assert whole_ticks(1, 300)[-1] == 300


def test_a_chart_leaves_out_lines_without_points() -> None:
    assert line_chart("loss", [Line("none", [])], "epoch") == ""
    drawn = line_chart("loss", [Line("none", []), Line("a < b", [(1, 0.5)])], "epoch")
    assert "</span> a &lt; b</li>" in drawn
    assert "none" not in drawn
    assert 'aria-label="loss by epoch. a &lt; b: 0.5."' in drawn


def test_dots_of_a_class_are_where_its_values_are() -> None:
    assert dot_plot("mAP", {}) == ""
    drawn = dot_plot("mAP", {"a < b": {"student": 1.0, "teacher": 0.0}, "c" * 30: {"student": 0.5}})
    assert [float(x) for x in re.findall(r'<circle class="dot c0" cx="([\d.]+)"', drawn)] == [388.0, 249.0]
    assert re.findall(r'<path class="ring c1" d="M([\d.]+) ', drawn) == ["110.0"]
    assert ">a &lt; b</text>" in drawn
    assert f">{'c' * 15}…</text>" in drawn
