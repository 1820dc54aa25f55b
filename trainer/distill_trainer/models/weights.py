"""Saves the student as a plain Ultralytics checkpoint."""

import copy
import hashlib
import io
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__

from distill_trainer.checkpoint.store.storage import atomic_write


def save_weights(
    path: Path, model: Any, *, train_args: Mapping[str, Any], metrics: Mapping[str, float] | None = None
) -> str:
    """Write `weights_bytes` to `path`, atomically, and return their SHA-256. Raises TrainerError."""
    content = weights_bytes(model, train_args=train_args, metrics=metrics)
    atomic_write(path, content)
    return hashlib.sha256(content).hexdigest()


def weights_bytes(model: Any, *, train_args: Mapping[str, Any], metrics: Mapping[str, float] | None = None) -> bytes:
    """The content of a .pt file with `model` (the student, without teacher and projector), for `YOLO(path)`.

    As after Ultralytics' strip_optimizer: fp16, without gradients, criterion and optimizer. `model` is not changed.
    """
    student = _on_cpu(model)
    student.criterion = None
    if hasattr(student, "args"):
        student.args = dict(train_args)
    student.half().eval()
    for parameter in student.parameters():
        parameter.requires_grad_(False)
    checkpoint = {
        "date": datetime.now().astimezone().isoformat(),
        "version": __version__,
        "license": "AGPL-3.0 License (https://ultralytics.com/license)",
        "docs": "https://docs.ultralytics.com",
        "epoch": -1,
        "best_fitness": None,
        "model": student,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "scaler": None,
        "train_args": dict(train_args),
        "train_metrics": dict(metrics or {}),
        "train_results": {},
    }
    stream = io.BytesIO()
    torch.save(checkpoint, stream)
    return stream.getvalue()


def _on_cpu(model: Any) -> Any:
    # Copy tensor by tensor to the CPU, so that the device never holds a second model.
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        data = tensor.detach().to("cpu", copy=True)
        memo[id(tensor)] = (
            torch.nn.Parameter(data, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else data
        )
    if getattr(model, "criterion", None) is not None:
        memo[id(model.criterion)] = None
    return copy.deepcopy(model, memo)
