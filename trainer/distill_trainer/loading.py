"""Reading .pt files without trusting them: a .pt is a pickle, and a pickle can run code when it is loaded."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import nn
from ultralytics.nn.tasks import guess_model_task, torch_safe_load

from distill_api.constants import Reason
from distill_trainer.errors import Permanent

_REFUSED_GLOBAL = re.compile(r"GLOBAL ([\w.]+)")


def file_sha256(path: Path) -> str:
    """Hex SHA-256 of a file. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_model_file(root: Path, name: str) -> Path:
    """The file `name` below the models volume, or Permanent(ModelNotFound) that lists what is there instead."""
    path = root / name
    if path.is_file():
        return path
    there = sorted(str(found.relative_to(root)) for found in root.rglob("*.pt"))[:8] if root.is_dir() else []
    hint = f"the volume has {', '.join(there)}" if there else "the volume has no .pt files"
    raise Permanent(Reason.MODEL_NOT_FOUND, f"model file {name} is not on the models volume; {hint}")


def check_sha256(path: Path, expected: str | None) -> str:
    """The file's digest; Permanent(DigestMismatch) when it is not the expected one."""
    digest = file_sha256(path)
    if expected is not None and digest != expected:
        raise Permanent(
            Reason.DIGEST_MISMATCH,
            f"{path} has sha256 {digest} but the job expects {expected}; correct one of the two",
        )
    return digest


def load_checkpoint(path: Path) -> nn.Module:
    """The model in a .pt file, fp32 and in eval mode. Only Ultralytics' and torch's own classes are created.

    Raises Permanent(ModelUnsafe) naming the class that the file wanted, and Permanent(ModelInvalid) for a damaged file
    or one that holds no Ultralytics model.
    """
    try:
        checkpoint, _ = torch_safe_load(path, safe_only=True)
    except (TypeError, UnpicklingError, ModuleNotFoundError) as error:
        raise _refusal(path, error) from error
    except (RuntimeError, EOFError, OSError, KeyError, AttributeError) as error:
        raise _damaged(path, error) from error
    model = checkpoint.get("ema") or checkpoint.get("model")
    model = getattr(model, "student_model", model)  # an unfinished Ultralytics distillation wraps its student
    if not isinstance(model, nn.Module):
        raise Permanent(
            Reason.MODEL_INVALID,
            f"{path} holds no Ultralytics model but {type(model).__name__}; give a checkpoint as YOLO().save() or "
            "training writes it",
        )
    return _modernise(model.float().eval())


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
    if wanted := _REFUSED_GLOBAL.search(str(cause)):
        return Permanent(
            Reason.MODEL_UNSAFE,
            f"{path} wants to load {wanted[1]}, which is no Ultralytics or torch model class; "
            "a .pt file can run code, so this one is refused",
        )
    if isinstance(cause, UnpicklingError) and torch.serialization._is_zipfile(path.open("rb")):
        return Permanent(Reason.MODEL_UNSAFE, f"{path} holds something that is not safe to load: {_line(cause)}")
    return _damaged(path, error)


def _damaged(path: Path, error: Exception) -> Permanent:
    return Permanent(
        Reason.MODEL_INVALID,
        f"{path} cannot be read as a model ({path.stat().st_size} bytes; {_line(error)}); copy it again",
    )


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0][:200]
