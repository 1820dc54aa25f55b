"""A .pt file is a pickle, and a pickle can run code: what is loaded, what is refused, and what the user is told."""

import hashlib
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ultralytics import YOLO

from distill_api.constants import Reason
from distill_trainer.errors import Permanent
from distill_trainer.loading import check_sha256, find_model_file, load_checkpoint
from distill_trainer.models import build_student, student_source
from trainer_support import build, dataset


class Runs:
    """Unpickles by running a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


@pytest.fixture
def trained(tmp_path: Path) -> Path:
    """A checkpoint as Ultralytics writes it."""
    model = YOLO("yolo26n.yaml")
    path = tmp_path / "yolo26n.pt"
    model.save(path)
    return path


def test_a_checkpoint_of_ultralytics_is_loaded(trained: Path) -> None:
    model = load_checkpoint(trained)
    assert model.task == "detect"
    assert next(model.parameters()).dtype is torch.float32
    assert not model.training


@pytest.mark.parametrize("zipped", [True, False])
def test_a_malicious_file_is_refused_by_name_and_runs_nothing(tmp_path: Path, zipped: bool) -> None:
    marker, path = tmp_path / "marker", tmp_path / "evil.pt"
    content = {"model": Runs(f"touch {marker}"), "ema": None}
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(Permanent) as refusal:
        load_checkpoint(path)
    assert not marker.exists()
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    assert "posix.system" in refusal.value.message
    assert "evil.pt" in refusal.value.message
    torch.load(path, weights_only=False)
    assert marker.exists(), "the file would not have run anything; the test proves nothing"


def test_a_malicious_object_inside_a_real_model_is_refused(trained: Path, tmp_path: Path) -> None:
    checkpoint = torch.load(trained, weights_only=False)
    marker = tmp_path / "marker"
    checkpoint["model"].hidden = Runs(f"touch {marker}")
    torch.save(checkpoint, trained)
    with pytest.raises(Permanent, match=r"posix\.system"):
        load_checkpoint(trained)
    assert not marker.exists()


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda content: content[: len(content) // 2],
        lambda _: b"not a model at all",
    ],
    ids=["empty", "truncated", "text"],
)
def test_a_damaged_file_is_an_invalid_model(trained: Path, damage: object) -> None:
    assert callable(damage)
    trained.write_bytes(damage(trained.read_bytes()))
    with pytest.raises(Permanent, match=r"yolo26n\.pt cannot be read as a model") as refusal:
        load_checkpoint(trained)
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_file_without_a_model_is_an_invalid_model(tmp_path: Path) -> None:
    torch.save({"weights": torch.zeros(3)}, tmp_path / "state.pt")
    with pytest.raises(Permanent, match="holds no Ultralytics model") as refusal:
        load_checkpoint(tmp_path / "state.pt")
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_missing_file_is_named_with_what_is_there(trained: Path) -> None:
    with pytest.raises(Permanent, match=r"yolo26s\.pt is not on the models volume; the volume has yolo26n\.pt"):
        find_model_file(trained.parent, "yolo26s.pt")


def test_an_unknown_architecture_is_not_found_and_nothing_is_downloaded(tmp_path: Path) -> None:
    for name in ("yolo99n.yaml", "https/example.yaml"):
        with pytest.raises(Permanent, match="neither a file on the models volume nor an architecture") as refusal:
            student_source(tmp_path, name)
        assert refusal.value.reason is Reason.MODEL_NOT_FOUND


@pytest.mark.parametrize("content", ["- 1\n", "nc: 3\n", "{", "backbone: []\nhead: [[-1, 1, Nonsense, []]]\nnc: 3\n"])
def test_an_unusable_architecture_is_an_invalid_model(tmp_path: Path, content: str) -> None:
    (tmp_path / "own.yaml").write_text(content)

    def student() -> object:
        source = student_source(tmp_path, "own.yaml")
        return build_student(source, dataset(), SimpleNamespace(model="own.yaml", pretrained=True), seed=0)

    with pytest.raises(Permanent) as refusal:
        student()
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_the_digest_of_the_teacher_is_checked(trained: Path) -> None:
    digest = hashlib.sha256(trained.read_bytes()).hexdigest()
    assert check_sha256(trained, digest) == check_sha256(trained, None) == digest
    with pytest.raises(Permanent, match="but the job expects 000") as refusal:
        check_sha256(trained, "0" * 64)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH


def test_a_pretrained_student_keeps_its_weights_and_gets_the_data_sets_classes(trained: Path) -> None:
    pretrained = load_checkpoint(trained)
    source = student_source(trained.parent, trained.name)
    student = build_student(source, dataset(), build("yolo26n.yaml").args, seed=3)
    assert student.names == dataset().names
    assert student.model[-1].nc == 3
    assert torch.equal(student.model[0].conv.weight, pretrained.model[0].conv.weight)
