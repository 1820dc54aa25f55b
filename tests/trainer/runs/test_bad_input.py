"""Every mistake with models, data and arguments that shows before the first step: one line that says what to change."""

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from distill_api.errors import Permanent
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_api.spec.training import Training
from distill_trainer.data import Shards, TrainData
from distill_trainer.models.arguments import rounded_imgsz
from distill_trainer.models.setup import adjustments, prepare
from distill_trainer.training.evaluation.validate import ValData
from tests.support.models import ALONE, CPU, SUFFIX, job_spec

Edit = Callable[[Path], object]

NAMES = {number: str(number) for number in range(10)}


def yaml_edit(**values: Any) -> Edit:
    """Set keys of data.yaml; None removes one."""

    def edit(root: Path) -> None:
        file = root / "data/digits.yaml"
        content = yaml.safe_load(file.read_text()) | values
        file.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not None}))

    return edit


def write(file: str, content: str | bytes) -> Edit:
    return lambda root: (root / file).write_bytes(content if isinstance(content, bytes) else content.encode())


def each(pattern: str, change: Callable[[Path], object]) -> Edit:
    return lambda root: [change(path) for path in sorted(root.glob(pattern))]


def columns(keep: int) -> Callable[[Path], object]:
    """Cut every line of a label file to its first columns."""
    return lambda file: file.write_text(
        "".join(" ".join(line.split()[:keep]) + "\n" for line in file.read_text().splitlines())
    )


def save(file: str, model: str, names: dict[int, str] | None = None) -> Edit:
    """Write a checkpoint of an architecture with random weights."""

    def edit(root: Path) -> None:
        yolo = YOLO(model)
        if names is not None:
            yolo.model.names = names
        yolo.save(root / file)

    return edit


@dataclass
class Mistake:
    words: list[str]
    edit: Edit = lambda _: None
    task: str = "detect"
    reason: Reason = Reason.DATASET_INVALID
    training: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)


LABEL = "data/labels/train/000000.txt"

MISTAKES = {
    "empty data YAML": Mistake(["digits.yaml", "is empty"], write("data/digits.yaml", "")),
    "data YAML is a folder": Mistake(["cannot be read"], spec={"dataset": {"config": "images"}}),
    "no data YAML": Mistake(["none.yaml does not exist", "digits.yaml"], spec={"dataset": {"config": "none.yaml"}}),
    "unknown key": Mistake(
        ["no train", "it has trian: did you mean train?"], yaml_edit(train=None, trian="images/train")
    ),
    "val is a number": Mistake(["val must be a folder of images"], yaml_edit(val=3)),
    "download is asked for": Mistake(
        ["elsewhere, which does not exist", "the download key is ignored"],
        yaml_edit(train="images/elsewhere", download="https://example.com/digits.zip"),
    ),
    "names are a word": Mistake(["names must be"], yaml_edit(names="digit")),
    "no image has labels": Mistake(["no training image has a label file"], lambda r: shutil.rmtree(r / "data/labels")),
    "all labels are empty": Mistake(
        ["no training image has labels"], each("data/labels/train/*.txt", lambda f: f.write_text(""))
    ),
    "no number": Mistake([f"{LABEL} line 1: 'half' is not a number"], write(LABEL, "1 .5 half .1 .1\n")),
    "too few columns": Mistake([f"{LABEL} line 1: 4 columns", "5: a class and a box"], write(LABEL, "1 .5 .5 .1\n")),
    "labels are no text": Mistake(["label file", LABEL, "cannot be read"], write(LABEL, b"\xff\xfe\x00")),
    "pixels instead of fractions": Mistake(
        ["none of", "can be used", "non-normalized"],
        each("data/labels/train/*.txt", lambda f: f.write_text("1 32 32 9 9\n")),
    ),
    "boxes for masks": Mistake(
        ["line 1: 5 columns, but a label for segment"], each("data/labels/*/*.txt", columns(5)), task="segment"
    ),
    "boxes for rotated boxes": Mistake(
        ["line 1: 5 columns, but a label for obb has 9"], each("data/labels/*/*.txt", columns(5)), task="obb"
    ),
    "boxes for keypoints": Mistake(
        ["line 1: 5 columns, but a label for pose has 20"], each("data/labels/*/*.txt", columns(5)), task="pose"
    ),
    "another kpt_shape": Mistake(
        ["20 columns, but a label for pose has 14"], yaml_edit(kpt_shape=[3, 3], flip_idx=None), task="pose"
    ),
    "all images are corrupt": Mistake(
        ["none of 6 images can be used"], each("data/images/train/*", lambda f: f.write_bytes(b"x"))
    ),
    "all val images are corrupt": Mistake(
        ["none of 2 images can be used"], each("data/images/val/*", lambda f: f.write_bytes(b"x"))
    ),
    "no such architecture": Mistake(
        ["yolo26nn.yaml is neither", "such as yolo26n.yaml"],
        reason=Reason.MODEL_NOT_FOUND,
        spec={"student": {"model": "yolo26nn.yaml"}},
    ),
    "no such student": Mistake(
        ["student.pt is not on the models volume"],
        reason=Reason.MODEL_NOT_FOUND,
        spec={"student": {"model": "student.pt"}},
    ),
    "no such teacher": Mistake(
        ["t.pt is not on the models volume", "teacher.pt"],
        save("models/teacher.pt", "yolo26s.yaml"),
        reason=Reason.MODEL_NOT_FOUND,
        spec={"teacher": {"model": "t.pt"}},
    ),
    "corrupt teacher": Mistake(
        ["teacher.pt cannot be read as a model", "it was not written by torch.save, or is incomplete (2000 bytes)"],
        write("models/teacher.pt", random.Random(0).randbytes(2000)),
        reason=Reason.MODEL_INVALID,
        spec={"teacher": {"model": "teacher.pt"}},
    ),
    "teacher of another task": Mistake(
        ["is a segment model", "yolo26n.yaml is a detect model"],
        save("models/teacher.pt", "yolo26s-seg.yaml", NAMES),
        reason=Reason.PAIR_MISMATCH,
        spec={"teacher": {"model": "teacher.pt"}},
    ),
    "teacher of other classes": Mistake(
        ["80 classes, but the data set has 10"],
        save("models/teacher.pt", "yolo26s.yaml"),
        reason=Reason.PAIR_MISMATCH,
        spec={"teacher": {"model": "teacher.pt"}},
    ),
    "student cannot be distilled": Mistake(
        ["Classify head"], reason=Reason.MODEL_INVALID, spec={"student": {"model": "yolo26n-cls.yaml"}}
    ),
    "student of another task than the data": Mistake(
        ["line 1: 5 columns, but a label for segment"],
        reason=Reason.DATASET_INVALID,
        spec={"student": {"model": "yolo26n-seg.yaml"}},
    ),
    "everything is frozen": Mistake(
        ["freezes the whole student, which has 24 layers"], reason=Reason.CONFIG_INVALID, training={"freeze": 100}
    ),
}


@pytest.fixture
def volumes(make_digits: Any, tmp_path: Path) -> Callable[[str], Path]:
    def make(task: str) -> Path:
        shutil.copytree(make_digits(task, train=6, val=2, imgsz=64), tmp_path / "data")
        (tmp_path / "models").mkdir()
        return tmp_path

    return make


@pytest.mark.parametrize(
    ("training", "said"),
    [
        ({"imgsz": 70}, ["training.imgsz 70 is not a multiple of 32, the model's largest stride; using 96"]),
        (
            {"close_mosaic": 10, "epochs": 10},
            ["training.close_mosaic 10 is not less than training.epochs 10; mosaic is disabled"],
        ),
        ({"close_mosaic": 10, "epochs": 10, "mosaic": 0.0}, []),
        ({"close_mosaic": 3, "epochs": 10}, []),
    ],
)
def test_what_is_not_done_as_asked_is_said_aloud(training: dict[str, Any], said: list[str]) -> None:
    asked = Training(**{"imgsz": 64} | training)
    assert adjustments(asked, rounded_imgsz(asked.imgsz, 32), 32) == said


def start(root: Path, task: str, training: dict[str, Any], spec: dict[str, Any]) -> None:
    """All that a rank does before its first step, without collectives."""
    fields = {
        "student": {"model": f"yolo26n{SUFFIX[task]}.yaml"},
        "teacher": None,
        "dataset": {"config": "digits.yaml"},
        "training": {"batch": 4, "imgsz": 64, "workers": 0} | training,
    }
    job = job_spec(**(fields | spec))
    directories = Directories(checkpoints=str(root), data=str(root / "data"), models=str(root / "models"))
    prepared = prepare(job, directories)
    shape: dict[str, Any] = {"imgsz": prepared.imgsz, "stride": prepared.stride}
    data = TrainData(prepared.dataset, job.training, **shape, shards=Shards(1, (0,)), device=CPU)
    ValData(prepared.dataset, job.training, **shape, batch=4, environment=ALONE)
    next(iter(data.batches(0, 1)))


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_refused_in_one_line_that_says_what_to_change(volumes: Callable[[str], Path], name: str) -> None:
    mistake = MISTAKES[name]
    root = volumes(mistake.task)
    mistake.edit(root)
    with pytest.raises(Permanent) as refused:
        start(root, mistake.task, mistake.training, mistake.spec)
    message = refused.value.message
    assert (refused.value.reason, [word for word in mistake.words if word not in message], message.count("\n")) == (
        mistake.reason, [], 0
    ), message  # fmt: skip


@pytest.mark.parametrize("task", SUFFIX)
def test_without_a_mistake_it_starts(volumes: Callable[[str], Path], task: str) -> None:
    start(volumes(task), task, {}, {})
