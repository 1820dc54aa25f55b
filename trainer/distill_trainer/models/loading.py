"""Loads .pt files safely: a .pt file is a pickle, and loading a pickle can run arbitrary code."""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError

from torch import nn
from ultralytics.nn.tasks import BaseModel, guess_model_task, torch_safe_load
from ultralytics.utils.checks import check_yolov5u_filename

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.models.pickled import foreign_classes, is_model_class, is_pickle, refused_class

log = logging.getLogger(__name__)

_MAX_LISTED = 8
"""Most names that an error message lists."""
_REMEDY = "trustPickle: true for this model in the job"
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


def check_sha256(path: Path, expected: str | None) -> str:
    """The file's SHA-256. Raises Permanent(DigestMismatch) if it is not the expected one."""
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise Permanent(Reason.MODEL_INVALID, f"{path} cannot be read: {error.strerror}") from error
    if expected is not None and digest != expected:
        raise Permanent(
            Reason.DIGEST_MISMATCH,
            f"{path} has sha256 {digest}, but the job expects {expected}; correct the job or replace the file",
        )
    return digest


def load_checkpoint(path: Path, *, trust_pickle: bool = False) -> nn.Module:
    """Load the model in a .pt file, in fp32 and eval mode. Allows only classes of Ultralytics and torch.

    With `trust_pickle`, a file with other classes is loaded too, and they are logged. Raises Permanent(ModelUnsafe),
    naming the classes that are not allowed, and Permanent(ModelInvalid) if the file is damaged or has no Ultralytics
    model.
    """
    _check_name(path)
    _check_zip(path)
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (TypeError, UnpicklingError, ModuleNotFoundError) as error:
        refusal = _refusal(path, error)
        if not trust_pickle or refusal.reason is not Reason.MODEL_UNSAFE:
            raise refusal from error
        checkpoint = _load_trusted(path, error)
    except AttributeError as error:  # Ultralytics fails this way if the file has no dictionary
        checkpoint = {"model": error.obj}
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    return _add_missing_attributes(_model_in(checkpoint, path).float().eval())


_UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError)
"""Errors that torch raises for damaged files, besides UnpicklingError."""


def _check_name(path: Path) -> None:
    """Reject the names of old YOLOv3 and YOLOv5 releases, for which Ultralytics would load another file."""
    loaded = Path(check_yolov5u_filename(str(path), verbose=False))
    if loaded != path:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path}: for this file name Ultralytics would load {loaded.name} instead; rename the file",
        )


def _check_zip(path: Path) -> None:
    """Verify the checksums of a zip file, which torch does not."""
    try:
        if not zipfile.is_zipfile(path):
            return
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error) as error:
        raise _damaged(path, error) from error
    if broken is not None:
        raise Permanent(Reason.MODEL_INVALID, f"{path} is damaged: the checksum of {broken} is wrong; copy it again")


def _load_trusted(path: Path, refused: Exception) -> dict[str, object]:
    log.warning(
        "TRUSTING %s because the job sets trustPickle: the file can run any code in this process. It loads %s",
        path,
        ", ".join(foreign_classes(path)) or _line(refused),
    )
    try:
        loaded = torch_safe_load(path, safe_only=False)[0]
    except ModuleNotFoundError as error:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} needs the Python module {error.name}, which is not installed; use a checkpoint without custom "
            "classes, or a trainer image that has the module (jobs never install packages)",
        ) from error
    except Exception as error:  # the file's code can raise anything
        raise _damaged(path, error) from error
    return dict(loaded)


def _model_in(checkpoint: dict[str, object], path: Path) -> nn.Module:
    model = checkpoint.get("ema") or checkpoint.get("model")
    model = getattr(model, "student_model", model)  # Ultralytics' distillation wraps the student until it is finished
    if isinstance(model, BaseModel):
        return model
    found = type(model).__name__ if model is not None else "a dictionary of " + ", ".join(map(str, checkpoint))[:200]
    raise Permanent(
        Reason.MODEL_INVALID,
        f"{path} has no Ultralytics model but {found}; use a checkpoint written by Ultralytics' training or "
        "YOLO().save()",
    )


def _add_missing_attributes(model: nn.Module) -> nn.Module:
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
    more = f" and {len(foreign) - _MAX_LISTED} more" if len(foreign) > _MAX_LISTED else ""
    return Permanent(
        Reason.MODEL_UNSAFE,
        f"{path} loads {', '.join(foreign[:_MAX_LISTED])}{more}, which no Ultralytics or torch model needs; it was "
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
