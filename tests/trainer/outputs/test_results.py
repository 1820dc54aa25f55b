"""What a run leaves for people: weights that Ultralytics loads, results.csv without doubles, arguments."""

import csv
import os
import pickletools
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from ultralytics import YOLO
from ultralytics.nn.tasks import DetectionModel

from distill_api.errors import Retryable
from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.models.loading import file_sha256
from distill_trainer.models.weights import save_weights
from distill_trainer.outputs.results import read_rows, results_csv, with_row, write_args


def rows(path: Path) -> list[list[str]]:
    with open(path) as file:
        return list(csv.reader(file))


def test_a_resumed_run_replaces_the_rows_it_does_again(tmp_path: Path) -> None:
    path, kept = tmp_path / "results.csv", read_rows(tmp_path / "results.csv")
    for epoch in (1, 2, 3):
        kept = with_row(kept, {"epoch": epoch, "time": epoch + 0.5, "train/box_loss": 1 / 3})
    path.write_bytes(results_csv(kept))
    again = {"epoch": 2, "time": 9.0, "train/box_loss": 2.0, "train/dis_loss": 4.0}
    path.write_bytes(results_csv(with_row(read_rows(path), again)))

    assert rows(path) == [
        ["epoch", "time", "train/box_loss", "train/dis_loss"],
        ["1", "1.5", "0.333333", ""],
        ["2", "9", "2", "4"],
    ]


@pytest.fixture(scope="module")
def student() -> DetectionModel:
    """A student as it is in training: with a criterion, in fp32, with gradients."""
    model = DetectionModel("yolo26n.yaml", nc=3, verbose=False)
    model.args = {"imgsz": 64}
    model.names = {0: "a", 1: "b", 2: "c"}
    model.criterion = torch.nn.Linear(2, 2)
    return model


def test_weights_are_a_plain_ultralytics_checkpoint_of_the_student_alone(
    tmp_path: Path, student: DetectionModel
) -> None:
    before = {name: value.clone() for name, value in student.state_dict().items()}
    path = tmp_path / "weights/best.pt"
    sha256 = save_weights(path, student, train_args={"imgsz": 64, "task": "detect"})
    loaded = YOLO(path)

    assert sha256 == file_sha256(path)
    assert loaded.names == student.names
    assert isinstance(loaded.model, DetectionModel)
    assert loaded.model.criterion is None
    ours, theirs = student.state_dict(), loaded.model.state_dict()
    names = [name for name in theirs if theirs[name].is_floating_point()]
    assert names
    assert all(torch.equal(theirs[name].half(), ours[name].half()) for name in names)
    assert loaded.predict(torch.zeros(1, 3, 64, 64), verbose=False)[0].boxes is not None
    assert path.stat().st_size < 8e6
    with zipfile.ZipFile(path) as archive:
        (pickled,) = (name for name in archive.namelist() if name.endswith("data.pkl"))
        words = {argument for _, argument, _ in pickletools.genops(archive.read(pickled)) if isinstance(argument, str)}
    assert not any("distill_trainer" in word for word in words)
    assert student.criterion is not None
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    assert all(parameter.requires_grad for parameter in student.model[0].parameters())


def test_args_are_written_as_yaml(tmp_path: Path) -> None:
    write_args(tmp_path / "args.yaml", {"task": "detect", "lr0": 0.01, "freeze": None})
    assert yaml.safe_load((tmp_path / "args.yaml").read_text()) == {"task": "detect", "lr0": 0.01, "freeze": None}


def test_a_kill_in_mid_write_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "best.pt"
    size = 3_000_000
    script = f"""
        import itertools, sys
        from pathlib import Path
        from distill_trainer.checkpoint.store.storage import atomic_write
        for n in itertools.count():
            atomic_write(Path(sys.argv[1]), bytes([n % 256]) * {size})
            print(n, flush=True)
    """
    for pause in (0.0, 0.013, 0.03, 0.05):
        writer = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        writer.stdout.readline()
        time.sleep(pause)
        writer.kill()
        writer.communicate()
        content = path.read_bytes()
        assert len(content) == size
        assert len(set(content)) == 1


def test_an_unwritable_place_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    atomic_write(path, b"old")
    blocked = tmp_path / "file/below"
    with pytest.raises(Retryable, match=r"I/O error at .*file"):
        atomic_write(blocked, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]
