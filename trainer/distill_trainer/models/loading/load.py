"""Loads .pt files safely: a .pt file is a pickle, and loading a pickle can run arbitrary code."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from torch import Tensor, nn
from ultralytics.nn.tasks import BaseModel, guess_model_task, torch_safe_load
from ultralytics.utils.checks import check_yolov5u_filename

from distill_api.errors import Permanent
from distill_api.reading.mistakes import listed
from distill_api.reasons import Reason
from distill_trainer.models.loading import inert
from distill_trainer.models.loading.architecture import BadArchitecture
from distill_trainer.models.loading.pickled import foreign_classes, is_model_class, is_pickle, refused_class
from distill_trainer.models.loading.rebuild import is_model, rebuild, tensors_of

log = logging.getLogger(__name__)

_MAX_LISTED = 8
"""Most names that an error message lists."""
_REMEDY = "trustPickle: true for this model in the job"
MOST_BYTES = 4 << 30
"""The largest file that is read; the largest model of Ultralytics has about 0.3 GB."""
MOST_PICKLE = 64 << 20
"""What a file's members may have beyond twice its size."""
_MAX_VISITED = 10_000
"""Most files visited for such a list: a models volume can be a whole disk."""


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model_file(root: Path, name: str) -> Path:
    """The path of the file `name` on the models volume. Raises Permanent(ModelNotFound), listing the volume's files."""
    path = root / name
    if path.is_file():
        return path
    files = _model_files(root)
    hint = f"the volume has {', '.join(files)}" if files else "the volume has no .pt files"
    raise Permanent(Reason.MODEL_NOT_FOUND, f"model file {name} is not on the models volume; {hint}")


def load_verified(path: Path, expected: str | None, *, trust_pickle: bool = False) -> tuple[nn.Module, str]:
    """The model in a .pt file and the file's SHA-256: the bytes that are hashed are those that are loaded.

    Raises Permanent(DigestMismatch) if the digest is not the expected one, and as `load_checkpoint`.
    """
    content = _content(path)
    digest = hashlib.sha256(content).hexdigest()
    if expected is not None and digest != expected:
        raise Permanent(
            Reason.DIGEST_MISMATCH,
            f"{path} has sha256 {digest}, but the job expects {expected}; correct the job or replace the file",
        )
    return _model_of(content, path, trust_pickle=trust_pickle), digest


def load_checkpoint(path: Path, *, trust_pickle: bool = False) -> nn.Module:
    """The model in a .pt file, in fp32 and eval mode: built anew from its architecture, names and tensors. No class of
    the file's choice is constructed, and no code of it runs.

    With `trust_pickle`, a file that needs other classes is loaded as it is, and they are logged. Raises
    Permanent(ModelUnsafe), naming the classes that are not allowed, and Permanent(ModelInvalid) if the file is damaged
    or has no Ultralytics model.
    """
    return _model_of(_content(path), path, trust_pickle=trust_pickle)


def load_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of the model in a .pt file, in fp32, by their names in a state_dict; no model is built.

    Raises as `load_checkpoint`.
    """
    try:
        saved = _saved_model(_content(path), path)
    except inert.Refused as error:
        raise _refusal(path, error) from error
    with _reported(path):
        found = tensors_of(saved)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in found.items()}


def _content(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > MOST_BYTES:
            raise Permanent(Reason.MODEL_INVALID, f"{path} has {size / 1e9:.1f} GB, more than any model of Ultralytics")
        return path.read_bytes()
    except OSError as error:
        raise Permanent(Reason.MODEL_INVALID, f"{path} cannot be read: {error.strerror}") from error


def _model_of(content: bytes, path: Path, *, trust_pickle: bool) -> nn.Module:
    try:
        saved = _saved_model(content, path)
    except inert.Refused as error:
        refusal = _refusal(path, error)
        if not trust_pickle or refusal.reason is not Reason.MODEL_UNSAFE:
            raise refusal from error
        return _add_missing_attributes(_model_in(_load_trusted(content, path, error), path).float().eval())
    with _reported(path):
        return _add_missing_attributes(rebuild(saved).float().eval())


@contextlib.contextmanager
def _reported(path: Path) -> Iterator[None]:
    try:
        yield
    except BadArchitecture as error:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} cannot be built as a model: {error}; use a checkpoint of Ultralytics' training",
        ) from error


def _check_name(path: Path) -> None:
    """Reject the names of old YOLOv3 and YOLOv5 releases, for which Ultralytics would load another file."""
    loaded = Path(check_yolov5u_filename(str(path), verbose=False))
    if loaded != path:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path}: for this file name Ultralytics would load {loaded.name} instead; rename the file",
        )


def _check_zip(content: bytes, path: Path) -> None:
    """Verify the checksums of a zip file, which torch does not, and that it is not much larger than it looks."""
    file = io.BytesIO(content)
    try:
        if not zipfile.is_zipfile(file):
            return
        with zipfile.ZipFile(file) as archive:
            if any(name.endswith("constants.pkl") for name in archive.namelist()):
                raise Permanent(
                    Reason.MODEL_INVALID,
                    f"{path} cannot be read as a model: it is a TorchScript archive; use the checkpoint that training "
                    "wrote",
                )
            if sum(member.file_size for member in archive.infolist()) > 2 * len(content) + MOST_PICKLE:
                raise Permanent(Reason.MODEL_INVALID, f"{path} cannot be read as a model: it is a zip bomb")
            broken = archive.testzip()
    except _BAD_ZIP as error:
        raise _damaged(path, error) from error
    if broken is not None:
        raise Permanent(Reason.MODEL_INVALID, f"{path} is damaged: the checksum of {broken} is wrong; copy it again")


_BAD_ZIP = (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, RuntimeError, ValueError, zlib.error)


def _load_trusted(content: bytes, path: Path, refused: Exception) -> dict[str, object]:
    """Run the pickle. Ultralytics' loader takes a path, so it gets a copy: the file may have changed meanwhile."""
    log.warning(
        "TRUSTING %s because the job sets trustPickle: the file can run any code in this process. It loads %s",
        path,
        ", ".join(foreign_classes(path)) or _line(refused),
    )
    try:
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder, path.name)
            copy.write_bytes(content)
            loaded = torch_safe_load(copy, safe_only=False)[0]
    except ModuleNotFoundError as error:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} needs the Python module {error.name}, which is not installed; use a checkpoint without custom "
            "classes, or a trainer image that has the module (jobs never install packages)",
        ) from error
    except Exception as error:  # the file's code can raise anything
        raise _damaged(path, error) from error
    return dict(loaded)


def _saved_model(content: bytes, path: Path) -> inert.StandIn:
    """What stands for the model in a .pt file. Raises Permanent, or Refused for classes that are not allowed."""
    _check_name(path)
    _check_zip(content, path)
    try:
        checkpoint = inert.read(content)
    except inert.Refused:
        raise
    except Exception as error:  # a damaged pickle decides what is called with what, and can raise anything
        raise _damaged(path, error) from error
    model = checkpoint
    if isinstance(checkpoint, Mapping):
        model = checkpoint.get("ema") or checkpoint.get("model")
    if isinstance(model, inert.StandIn):  # Ultralytics' distillation wraps the student until it is finished
        model = (model.get("_modules") or {}).get("student_model", model)
    if not is_model(model):
        raise _no_model(model, checkpoint, path)
    found: inert.StandIn = model
    return found


def _model_in(checkpoint: dict[str, object], path: Path) -> nn.Module:
    model = checkpoint.get("ema") or checkpoint.get("model")
    model = getattr(model, "student_model", model)
    if isinstance(model, BaseModel):
        return model
    raise _no_model(model, checkpoint, path)


def _no_model(model: object, checkpoint: object, path: Path) -> Permanent:
    found = type(model).__name__
    if model is None:
        found = "a dictionary of " + ", ".join(map(str, checkpoint if isinstance(checkpoint, Mapping) else ()))[:200]
    return Permanent(
        Reason.MODEL_INVALID,
        f"{path} has no Ultralytics model but {found}; use a checkpoint written by Ultralytics' training or "
        "YOLO().save()",
    )


def _add_missing_attributes(model: Any) -> nn.Module:
    """Add attributes that models saved with older Ultralytics and torch versions lack."""
    if not hasattr(model, "task"):
        model.task = guess_model_task(model)
    for module in model.modules():
        if hasattr(module, "inplace"):
            module.inplace = True
        elif isinstance(module, nn.Upsample) and not hasattr(module, "recompute_scale_factor"):
            module.recompute_scale_factor = None
    return model


def _refusal(path: Path, error: Exception) -> Permanent:
    cause = error.__cause__ if isinstance(error.__cause__, UnpicklingError) else error
    if not isinstance(cause, UnpicklingError | ModuleNotFoundError):
        return _damaged(path, error)
    first, foreign = refused_class(cause), foreign_classes(path)
    if first is None and not is_pickle(path):
        return _damaged(path, error)
    if first is not None and not is_model_class(first):
        foreign = list(dict.fromkeys([first, *foreign]))
    if not foreign:
        return Permanent(
            Reason.MODEL_UNSAFE,
            f"the pickle in {path} cannot be loaded safely; if you trust the file, load it and save it again with "
            f"torch.save, or set {_REMEDY}",
        )
    return Permanent(
        Reason.MODEL_UNSAFE,
        f"{path} loads {listed(foreign, _MAX_LISTED)}, which no Ultralytics or torch model needs; it was "
        f"not loaded, because it could run any code. If you trust the file, set {_REMEDY}",
    )


def _damaged(path: Path, error: Exception) -> Permanent:
    if isinstance(error, OSError):
        return Permanent(Reason.MODEL_INVALID, f"{path} cannot be read: {error.strerror}")
    if "TorchScript" in str(error):
        why = "it is a TorchScript archive; use the checkpoint that training wrote"
    elif not is_pickle(path):
        why = f"it was not written by torch.save, or is incomplete ({path.stat().st_size} bytes); copy it again"
    else:
        why = f"{_line(error)}; copy it again"
    return Permanent(Reason.MODEL_INVALID, f"{path} cannot be read as a model: {why}")


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]


def _model_files(root: Path) -> list[str]:
    found: list[str] = []
    visited = 0
    for folder, folders, files in os.walk(root):
        folders.sort()
        visited += len(files) + len(folders)
        found += [os.path.relpath(os.path.join(folder, file), root) for file in sorted(files) if file.endswith(".pt")]
        if len(found) >= _MAX_LISTED or visited > _MAX_VISITED:
            break
    return found[:_MAX_LISTED]
