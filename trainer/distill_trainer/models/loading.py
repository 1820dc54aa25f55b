"""Reading .pt files without trusting them: a .pt is a pickle, and a pickle can run code when it is loaded."""

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
from distill_trainer.models.pickled import foreign_classes, is_of_models, is_pickle, refused_class

log = logging.getLogger(__name__)

_LISTED = 8
"""Names that a message lists at most."""
_REMEDY = "trustPickle: true beside the model's name in the job"
_MOST_VISITED = 10_000
"""Files that are looked at for such a list: a models volume may be a whole disk."""


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model_file(root: Path, name: str) -> Path:
    """The file `name` below the models volume, or Permanent(ModelNotFound) that lists what is there instead."""
    path = root / name
    if path.is_file():
        return path
    there = _model_files(root)
    hint = f"the volume has {', '.join(there)}" if there else "the volume has no .pt files"
    raise Permanent(Reason.MODEL_NOT_FOUND, f"model file {name} is not on the models volume; {hint}")


def check_sha256(path: Path, expected: str | None) -> str:
    """The file's digest; Permanent(DigestMismatch) when it is not the expected one."""
    try:
        digest = file_sha256(path)
    except OSError as error:
        raise Permanent(Reason.MODEL_INVALID, f"{path} cannot be read: {error.strerror}") from error
    if expected is not None and digest != expected:
        raise Permanent(
            Reason.DIGEST_MISMATCH,
            f"{path} has sha256 {digest} but the job expects {expected}; correct one of the two",
        )
    return digest


def load_checkpoint(path: Path, *, trust_pickle: bool = False) -> nn.Module:
    """The model in a .pt file, fp32 and in eval mode. Only Ultralytics' and torch's own classes are created.

    With `trust_pickle` a file that wants other classes is loaded all the same, and the log names them.
    Raises Permanent(ModelUnsafe) naming the classes that the file wanted, and Permanent(ModelInvalid) for a damaged
    file or one that holds no Ultralytics model.
    """
    _check_name(path)
    _check_whole(path)
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (TypeError, UnpicklingError, ModuleNotFoundError) as error:
        refusal = _refusal(path, error)
        if not trust_pickle or refusal.reason is not Reason.MODEL_UNSAFE:
            raise refusal from error
        checkpoint = _load_trusted(path, error)
    except AttributeError as error:  # what Ultralytics does with anything else than a dictionary
        checkpoint = {"model": error.obj}
    except _UNREADABLE as error:
        raise _damaged(path, error) from error
    return _modernise(_model_in(checkpoint, path).float().eval())


_UNREADABLE = (RuntimeError, EOFError, OSError, KeyError, IndexError, ValueError)
"""What torch raises for files that are damaged, besides UnpicklingError."""


def _check_name(path: Path) -> None:
    """Ultralytics reads another file than it is asked for when the name is that of an old YOLOv3 or YOLOv5 release."""
    read = Path(check_yolov5u_filename(str(path), verbose=False))
    if read != path:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} has a name that Ultralytics reads as {read.name}, its own release of that model; rename the file",
        )


def _check_whole(path: Path) -> None:
    """Compare the checksums that a zip keeps of its parts, which torch does not."""
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
        "TRUSTING %s because the job sets trustPickle: the file can run any code in this process. It wants %s",
        path,
        ", ".join(foreign_classes(path)) or _line(refused),
    )
    try:
        loaded = torch_safe_load(path, safe_only=False)[0]
    except ModuleNotFoundError as error:
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} needs the Python module {error.name}, which is not installed here, and a job installs nothing; "
            "give a checkpoint without classes of its own, or a trainer image that has the module",
        ) from error
    except Exception as error:  # the file's own code may fail in any way
        raise _damaged(path, error) from error
    return dict(loaded)


def _model_in(checkpoint: dict[str, object], path: Path) -> nn.Module:
    model = checkpoint.get("ema") or checkpoint.get("model")
    model = getattr(model, "student_model", model)  # an unfinished Ultralytics distillation wraps its student
    if isinstance(model, BaseModel):
        return model
    held = type(model).__name__ if model is not None else "a dictionary of " + ", ".join(map(str, checkpoint))[:200]
    raise Permanent(
        Reason.MODEL_INVALID,
        f"{path} holds no Ultralytics model but {held}; give a checkpoint as YOLO().save() or training writes it",
    )


def _modernise(model: nn.Module) -> nn.Module:
    """Attributes that files of older Ultralytics and torch versions lack."""
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
    if first is not None and not is_of_models(first):
        foreign = list(dict.fromkeys([first, *foreign]))
    if not foreign:
        return Permanent(
            Reason.MODEL_UNSAFE,
            f"{path} is pickled in a way that cannot be loaded safely; where you trust it, load it and write it again "
            f"with torch.save, or set {_REMEDY}",
        )
    wanted = ", ".join(foreign[:_LISTED]) + (f" and {len(foreign) - _LISTED} more" if len(foreign) > _LISTED else "")
    return Permanent(
        Reason.MODEL_UNSAFE,
        f"{path} wants to load {wanted}, which no Ultralytics or torch model needs; a .pt file can run code, so this "
        f"one is refused. If you trust who made it, set {_REMEDY}",
    )


def _damaged(path: Path, error: Exception) -> Permanent:
    if isinstance(error, OSError):
        return Permanent(Reason.MODEL_INVALID, f"{path} cannot be read: {error.strerror}")
    if "TorchScript" in str(error):
        why = "it is a TorchScript archive; give the checkpoint that training wrote"
    elif not is_pickle(path):
        why = f"its {path.stat().st_size} bytes are not what torch.save writes, or only a part of it; copy it again"
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
        if len(found) >= _LISTED or visited > _MOST_VISITED:
            break
    return found[:_LISTED]
