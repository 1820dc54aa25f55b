"""A .pt file is data: whatever is in it, nothing of it runs, and a bad one is one line and exit 78."""

import copy
import io
import pickle
import random
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics import YOLO
from ultralytics.nn import tasks

from distill_api.constants import ExitCode
from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.models.loading import load_checkpoint, load_tensors
from distill_trainer.models.student import build_student
from tests.support.models import dataset

MEMORY = 1 << 30
"""Bytes by which reading a file of 6 MB may raise the largest resident set, beside what the model takes."""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "n.pt"
    YOLO("yolo26n.yaml").save(path)
    return path


def changed(original: Path, path: Path, change: Callable[[Any], None]) -> Path:
    """A copy whose model was changed before it was saved."""
    checkpoint = torch.load(original, weights_only=False)
    change(checkpoint["model"])
    torch.save(checkpoint, path)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(Permanent) as refused:
        load_checkpoint(path)
    assert refused.value.exit_code == ExitCode.PERMANENT
    assert refused.value.reason in (Reason.MODEL_INVALID, Reason.MODEL_UNSAFE)
    assert "\n" not in refused.value.message
    return refused.value.message


def test_what_is_loaded_is_a_fresh_model_with_the_files_tensors(original: Path) -> None:
    saved = torch.load(original, weights_only=False)["model"]
    random_numbers = torch.get_rng_state()
    found: Any = load_checkpoint(original)
    assert torch.equal(torch.get_rng_state(), random_numbers)
    ours, theirs = found.state_dict(), saved.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name].float()) for name in ours)
    assert (found.task, found.names, found.stride.tolist()) == ("detect", saved.names, saved.stride.tolist())


def test_no_constructor_of_the_files_choice_runs(
    original: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.Linear, "__init__", lambda *_: pytest.fail("constructed"))

    class Constructs:
        def __reduce__(self) -> tuple[object, tuple[int, int]]:
            return nn.Linear, (60_000, 60_000)

    path = changed(original, tmp_path / "n.pt", lambda model: setattr(model, "extra", Constructs()))
    load_checkpoint(path)


def test_no_attribute_of_the_file_shadows_a_method(original: Path, tmp_path: Path) -> None:
    def change(model: Any) -> None:
        model.__dict__.update(float=None, state_dict=None, fuse=None, forward=None)

    model = load_checkpoint(changed(original, tmp_path / "n.pt", change))
    assert callable(model.forward)
    assert callable(model.float)


def test_tensors_are_those_of_the_model_without_one(original: Path, tmp_path: Path) -> None:
    model = load_checkpoint(original).state_dict()
    tensors = load_tensors(original)
    assert tensors.keys() == model.keys()
    assert all(torch.equal(tensors[name], value) for name, value in model.items())
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float32, torch.int64}
    for name in ("NaN", "a cycle of modules"):
        change, says = BAD[name]
        with pytest.raises(Permanent, match=says) as refused:
            load_tensors(changed(original, tmp_path / "n.pt", change))
        assert refused.value.reason is Reason.MODEL_INVALID


def test_a_large_architecture_is_refused_where_new_memory_is_filled(original: Path, tmp_path: Path) -> None:
    change, says = BAD["too wide"]
    bad, before = changed(original, tmp_path / "n.pt", change), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    torch.use_deterministic_algorithms(True)
    try:
        assert says in refusal(bad)
    finally:
        torch.use_deterministic_algorithms(False)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY
    assert torch.utils.deterministic.fill_uninitialized_memory


def layer(row: list[Any]) -> Callable[[Any], None]:
    return lambda model: model.yaml["backbone"].insert(0, row)


BAD: dict[str, tuple[Callable[[Any], None], str]] = {
    "a function as a layer": (layer([-1, 1, "torch_safe_load", ["other.pt"]]), "it has a layer 'torch_safe_load'"),
    "a model of torchvision": (layer([-1, 1, "TorchVision", [1, "resnet18", "DEFAULT"]]), "a layer 'TorchVision'"),
    "a module of torch": (layer([-1, 1, "nn.Linear", [60_000, 60_000]]), "it has a layer 'nn.Linear'"),
    "a number as a layer": (layer([-1, 1, 7, []]), "it has a layer 7"),
    "an expression as activation": (
        lambda model: model.yaml.update(activation="__import__('os').system('touch x')"), "its activation is",
    ),
    "too many repeats": (layer([-1, 10**9, "Conv", [8, 1]]), "it has more layers than any model"),
    "too many layers": (lambda model: model.yaml.update(backbone=model.yaml["backbone"] * 99), "more layers than any"),
    "too wide": (lambda model: model.yaml.update(scales={"n": [0.5, 64.0, 65536]}), "much larger than its tensors"),
    "a larger architecture": (lambda model: model.yaml.update(scale="s"), "much larger than its tensors"),
    "another architecture": (
        lambda model: model.yaml.update(scales={"n": [1.0, 0.25, 1024]}),
        "is not that of its tensors",
    ),
    "no architecture": (lambda model: setattr(model, "yaml", None), "its backbone is no list of layers"),
    "an object in the architecture": (lambda model: model.yaml.update(nc=torch.zeros(3)), "it holds a Tensor"),
    "a cycle in the architecture": (lambda model: model.yaml.update(more=model.yaml), "it is nested too deeply"),
    "a cycle of modules": (lambda model: model._modules.update(again=model), "its modules are nested without end"),
    "a wrong shape": (
        lambda model: setattr(model.model[0].conv, "weight", nn.Parameter(torch.zeros(16, 3, 5, 5))),
        "is [16, 3, 5, 5]",
    ),
    "a missing tensor": (lambda model: delattr(model.model[0].conv, "weight"), "model.0.conv.weight is nothing"),
    "NaN": (lambda model: model.model[0].conv.weight.data.fill_(float("nan")), "no finite numbers"),
    "names that are none": (lambda model: setattr(model, "names", {"a": "b"}), "neither a list nor numbered"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_model_is_refused_with_what_is_wrong(original: Path, tmp_path: Path, name: str) -> None:
    change, says = BAD[name]
    message = refusal(changed(original, tmp_path / "n.pt", change))
    assert "cannot be built as a model" in message
    assert says in message


SMALL = {
    "nc": 2,
    "backbone": [[-1, 1, "Conv", [16, 3, 2]], [-1, 1, "C2f", [16]], [-1, 1, "Conv", [16, 3, 2]]],
    "head": [[[1, 2], 1, "Detect", ["nc"]]],
}


def rezipped(original: Path, path: Path, change: Callable[[bytes], bytes]) -> Path:
    """A copy with another pickle, and right checksums."""
    with zipfile.ZipFile(original) as before, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as after:
        for member in before.infolist():
            content = before.read(member)
            after.writestr(member.filename, change(content) if member.filename.endswith("data.pkl") else content)
    return path


def test_200_mutated_pickles_end_in_a_model_or_in_one_line(tmp_path: Path) -> None:
    original = tmp_path / "small.pt"
    torch.save({"model": tasks.DetectionModel(copy.deepcopy(SMALL), nc=2, verbose=False)}, original)
    load_checkpoint(original)
    path, refusals = tmp_path / "n.pt", 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in range(200):
        rng = random.Random(number)

        def mutate(content: bytes, rng: random.Random = rng) -> bytes:
            mutated = bytearray(content)
            for _ in range(rng.choice([1, 1, 2, 8, 64])):
                place = rng.randrange(len(mutated))
                mutated[place : place + rng.choice([0, 1, 1, 4])] = rng.randbytes(rng.choice([0, 1, 1, 1, 4]))
            return bytes(mutated)

        rezipped(original, path, mutate)
        refused = None
        try:
            load_checkpoint(path)
        except Permanent as error:
            refused = error
        if refused is not None:
            refusals += 1
            assert refused.reason in (Reason.MODEL_INVALID, Reason.MODEL_UNSAFE)
            assert "\n" not in refused.message
    assert refusals > 100
    assert 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) < MEMORY


def test_bombs_are_one_line(original: Path, tmp_path: Path) -> None:
    """Lists of lists of lists, a long number, a table of 16 GB, zipped zeros, a deep nesting, a file of a terabyte."""
    nested: list[Any] = []
    for _ in range(40):
        nested = [nested] * 10
    for content in (
        pickle.dumps({"model": nested}, 2),
        b"\x80\x02\x8b\xff\xff\xff\x7f" + b"1" * 1000,
        b"(" * 10**6 + b".",
    ):
        refusal(rezipped(original, tmp_path / "n.pt", lambda _, content=content: content))
    with zipfile.ZipFile(tmp_path / "zeros.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(1 << 28))
    assert "zip bomb" in refusal(tmp_path / "zeros.pt")
    deep: Any = None
    for _ in range(200):
        deep = {"_modules": deep}
    torch.save({"model": deep}, tmp_path / "deep.pt")
    refusal(tmp_path / "deep.pt")
    with open(tmp_path / "huge.pt", "wb") as file:
        file.truncate(1 << 40)
    assert "more than any model" in refusal(tmp_path / "huge.pt")


def test_a_tensor_cannot_look_outside_its_storage(tmp_path: Path) -> None:
    class Outside:
        def __reduce__(self) -> Any:
            storage = torch.zeros(4).untyped_storage()
            typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
            return torch._utils._rebuild_tensor_v2, (typed, 0, (1 << 40,), (1,), False, {})

    stream = io.BytesIO()
    torch.save({"model": Outside()}, stream)
    (tmp_path / "n.pt").write_bytes(stream.getvalue())
    refusal(tmp_path / "n.pt")


def test_a_yaml_architecture_is_checked_too(tmp_path: Path) -> None:
    architecture = dict(tasks.yaml_model_load("yolo26n.yaml"))
    architecture["activation"] = f"open('{tmp_path / 'marker'}', 'w')"
    arguments = SimpleNamespace(model="own.yaml", pretrained=True)
    with pytest.raises(Permanent, match=r"architecture own\.yaml: its activation is"):
        build_student((architecture, None, "detect"), dataset(), arguments, seed=0)
    assert not (tmp_path / "marker").exists()
