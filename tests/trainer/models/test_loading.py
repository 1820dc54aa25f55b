"""A .pt file is a pickle, and a pickle can run code: what is loaded, what is refused, and what the user is told."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics import YOLO

from distill_api.errors import Permanent
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_trainer.models.loading import find_model_file, load_checkpoint, load_verified
from distill_trainer.models.setup import prepare
from distill_trainer.models.student import build_student, student_source
from tests.support.models import build, dataset, job_spec


class Runs:
    """Unpickles by running a command."""

    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self._command,)


class Counted:
    """A harmless class of somebody else's."""

    def __init__(self, count: int) -> None:
        self.count = count


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


@pytest.mark.parametrize("saved", [{}, {"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_a_malicious_object_deep_in_a_model_runs_only_in_a_trusted_file(
    trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, saved: dict[str, Any]
) -> None:
    checkpoint = torch.load(trained, weights_only=False)
    marker = tmp_path / "marker"
    checkpoint["model"].hidden = {"deep": [("below", Runs(f"touch {marker}"))]}
    torch.save(checkpoint, trained, **saved)
    with pytest.raises(Permanent, match=r"posix\.system.*set trustPickle: true") as refusal:
        load_checkpoint(trained)
    assert refusal.value.reason is Reason.MODEL_UNSAFE
    assert not marker.exists()
    assert "TRUSTING" not in caplog.text

    assert load_checkpoint(trained, trust_pickle=True).task == "detect"
    assert marker.exists()
    assert f"TRUSTING {trained} because the job sets trustPickle" in caplog.text
    assert "It loads posix.system" in caplog.text


@pytest.mark.parametrize("saved", [{"_use_new_zipfile_serialization": False}, {"pickle_protocol": 4}])
def test_a_harmless_file_in_another_form_is_loaded(trained: Path, saved: dict[str, Any]) -> None:
    before = load_checkpoint(trained).state_dict()
    torch.save(torch.load(trained, weights_only=False), trained, **saved)
    after = load_checkpoint(trained).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_module_that_is_not_here_is_named_and_never_installed(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("absent_here")
    module.Block = type("Block", (torch.nn.Module,), {"__module__": "absent_here"})
    with monkeypatch.context() as present:
        present.setitem(sys.modules, "absent_here", module)
        checkpoint = torch.load(trained, weights_only=False)
        checkpoint["model"].extra = module.Block()
        torch.save(checkpoint, trained)
    with pytest.raises(Permanent, match=r"loads absent_here\.Block") as refusal:
        load_checkpoint(trained)
    assert refusal.value.reason is Reason.MODEL_UNSAFE

    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("a program was started"))
    with pytest.raises(Permanent, match=r"needs the Python module absent_here.*jobs never install packages") as refusal:
        load_checkpoint(trained, trust_pickle=True)
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_class_that_is_here_is_loaded_when_the_job_trusts_the_file(trained: Path) -> None:
    checkpoint = torch.load(trained, weights_only=False)
    checkpoint["notes"] = Counted(3)
    torch.save(checkpoint, trained)
    with pytest.raises(Permanent, match=rf"loads {Counted.__module__}\.Counted"):
        load_checkpoint(trained)
    assert load_checkpoint(trained, trust_pickle=True).task == "detect"


def test_a_trusted_file_is_the_one_that_was_hashed(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint = torch.load(trained, weights_only=False)
    checkpoint["notes"] = Counted(3)
    torch.save(checkpoint, trained)
    content = trained.read_bytes()
    marker = trained.parent / "marker"
    read = Path.read_bytes

    def read_then_replace(path: Path) -> bytes:
        found = read(path)
        torch.save({"model": Runs(f"touch {marker}")}, trained)
        return found

    monkeypatch.setattr(Path, "read_bytes", read_then_replace)
    model, digest = load_verified(trained, hashlib.sha256(content).hexdigest(), trust_pickle=True)
    assert isinstance(model, torch.nn.Module)
    assert digest == hashlib.sha256(content).hexdigest()
    assert not marker.exists()


def test_only_the_model_that_the_job_trusts_is_trusted(tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    torch.save({"model": Runs(f"touch {marker}")}, tmp_path / "evil.pt")
    directories = Directories(checkpoints="", data="", models=str(tmp_path))
    with pytest.raises(Permanent, match=r"evil\.pt loads posix\.system"):
        prepare(job_spec(student={"model": "evil.pt"}, teacher={"model": "evil.pt", "trustPickle": True}), directories)
    assert not marker.exists()
    with pytest.raises(Permanent, match=r"evil\.pt has no Ultralytics model"):
        prepare(job_spec(student={"model": "evil.pt", "trustPickle": True}), directories)
    assert marker.exists()


@pytest.mark.parametrize("trusted", [False, True])
def test_a_teacher_of_another_digest_is_refused_before_it_is_unpickled(
    make_digits: Any, tmp_path: Path, trusted: bool
) -> None:
    marker = tmp_path / "marker"
    torch.save({"model": Runs(f"touch {marker}")}, tmp_path / "evil.pt")
    directories = Directories(checkpoints="", data=str(make_digits(train=6, val=2, imgsz=64)), models=str(tmp_path))
    teacher = {"model": "evil.pt", "sha256": "0" * 64, "trustPickle": trusted}
    with pytest.raises(Permanent) as refusal:
        prepare(job_spec(teacher=teacher, dataset={"config": "digits.yaml"}), directories)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH
    assert not marker.exists()


def test_a_flipped_byte_in_the_weights_is_found(trained: Path) -> None:
    content = bytearray(trained.read_bytes())
    content[len(content) // 2] ^= 0xFF
    trained.write_bytes(content)
    with pytest.raises(Permanent, match=r"is damaged: the checksum of .* is wrong; copy it again") as refusal:
        load_checkpoint(trained)
    assert refusal.value.reason is Reason.MODEL_INVALID


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


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"weights": torch.zeros(3)}, "a dictionary of weights"),
        ({"model": torch.nn.Linear(2, 2)}, "Linear"),
        ([1, 2], "list"),
        (torch.zeros(3), "Tensor"),
    ],
)
def test_a_file_without_a_model_is_an_invalid_model(tmp_path: Path, content: object, held: str) -> None:
    torch.save(content, tmp_path / "state.pt")
    with pytest.raises(Permanent, match=f"has no Ultralytics model but {held};") as refusal:
        load_checkpoint(tmp_path / "state.pt")
    assert refusal.value.reason is Reason.MODEL_INVALID


def test_a_missing_file_is_named_with_what_is_there(trained: Path) -> None:
    with pytest.raises(Permanent, match=r"yolo26s\.pt is not on the models volume; the volume has yolo26n\.pt"):
        find_model_file(trained.parent, "yolo26s.pt")


def test_an_unknown_architecture_is_not_found_and_nothing_is_downloaded(tmp_path: Path) -> None:
    for name in ("yolo99n.yaml", "https/example.yaml"):
        with pytest.raises(Permanent, match="nor an Ultralytics architecture such as") as refusal:
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
    assert load_verified(trained, digest)[1] == load_verified(trained, None)[1] == digest
    with pytest.raises(Permanent, match="but the job expects 000") as refusal:
        load_verified(trained, "0" * 64)
    assert refusal.value.reason is Reason.DIGEST_MISMATCH


def test_a_pretrained_student_keeps_its_weights_and_gets_new_classes(trained: Path) -> None:
    pretrained = load_checkpoint(trained)
    source = student_source(trained.parent, trained.name)
    student = build_student(source, dataset(), build("yolo26n.yaml").args, seed=3)
    assert student.names == dataset().names
    assert student.model[-1].nc == 3
    assert torch.equal(student.model[0].conv.weight, pretrained.model[0].conv.weight)


def test_an_old_releases_file_name_is_refused_before_ultralytics_sees_it(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained.parent)
    trained.rename("yolov5s.pt")
    with pytest.raises(Permanent, match=r"yolov5s\.pt: for this file name Ultralytics would load yolov5su\.pt"):
        load_checkpoint(Path("yolov5s.pt"))
