"""A job that is only to be checked: it trains nothing, says what it found, and leaves nothing on the volume."""

import shutil
from copy import copy as copy_of
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.errors import Checked, Permanent
from distill_api.reasons import Reason
from distill_trainer.process.run_files import RunFiles
from distill_trainer.training.checking import leaving_nothing
from tests.support.ranks.in_process import Volumes

STUDENT = "yolo26n.yaml"


@pytest.fixture(scope="module")
def pattern(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    volumes = Volumes(tmp_path_factory.mktemp("volumes"))
    volumes.save_model("yolo26s.yaml")
    return volumes


@pytest.fixture
def place(pattern: Volumes, tmp_path: Path) -> Volumes:
    """Volumes that the test may change."""
    shutil.copytree(pattern.root, tmp_path, dirs_exist_ok=True)
    copy = copy_of(pattern)
    copy.root = tmp_path
    return copy


def check(place: Volumes, job: str = "job", student: Any = STUDENT, **spec: Any) -> str:
    with pytest.raises(Checked) as found:
        place.run(job, student, "yolo26s.pt", checkOnly=True, **spec)
    return str(found.value)


def edit(place: Volumes, **values: Any) -> None:
    file = place.root / "data/digits.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | values))


def test_what_was_found_and_nothing_is_left(place: Volumes) -> None:
    said = check(place)
    pair = "yolo26n.yaml (2.5 M parameters) can learn from yolo26s.pt (10.0 M parameters)"
    assert said.startswith(f"{pair}; detect, 10 classes, 12 training and 4 validation images, 3 steps in an epoch")
    assert list((place.root / "checkpoints").iterdir()) == []


def test_a_student_that_inherits_and_other_terms(place: Volumes) -> None:
    terms = {"terms": [{"loss": "bckd", "weight": 1.0}, {"loss": "iou", "weight": 2.0}]}
    assert "can learn from" in check(place, student={"model": STUDENT, "init": "inherit"}, recipe="ultralytics")
    assert "can learn from" in check(place, "terms", distillation=terms)


def test_a_mistake_is_what_a_training_would_say(place: Volumes) -> None:
    names = dict(enumerate(("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nein")))
    edit(place, names=names)
    with pytest.raises(Permanent) as found:
        place.run("job", STUDENT, "yolo26s.pt", checkOnly=True)
    assert found.value.reason == Reason.PAIR_MISMATCH
    assert list((place.root / "checkpoints").iterdir()) == []


def test_warnings_of_what_is_most_often_not_meant(place: Volumes) -> None:
    for file in (place.root / "data/labels/val").glob("*.txt"):
        lines = [line for line in file.read_text().splitlines() if line.split()[0] != "3"]
        file.write_text("\n".join(lines))
    said = check(place, report={"baseline": "plain"})
    name = place.classes[3]
    assert name in said.partition("no label of val has the class ")[2]
    assert "warning: report.baseline plain is neither a .pt file nor a job" in said


@pytest.mark.parametrize(
    "there", ["mine.txt", "weights/best.pt", "checkpoints/step-3/manifest.json", "checkpoints/step-3.damaged/x"]
)
def test_what_was_there_before_stays(tmp_path: Path, there: str) -> None:
    files = RunFiles(tmp_path / "job")
    (files.root / there).parent.mkdir(parents=True)
    (files.root / there).write_text("mine")
    with leaving_nothing(files):
        files.labels.mkdir()
    assert (files.root / there).read_text() == "mine"


def test_what_the_check_made_goes_whatever_happens(tmp_path: Path) -> None:
    files = RunFiles(tmp_path / "job")
    with pytest.raises(OSError, match="the volume is gone"), leaving_nothing(files):
        files.checkpoints.mkdir(parents=True)
        (files.checkpoints / "fence").touch()
        raise OSError("the volume is gone")
    assert list(tmp_path.iterdir()) == []
