"""The student's weights as a plain Ultralytics checkpoint."""

import copy
import hashlib
import io
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from ultralytics import __version__

from distill_trainer.checkpoint.store.storage import atomic_write


def save_weights(
    path: Path,
    model: Any,
    *,
    train_args: Mapping[str, Any],
    metrics: Mapping[str, float] | None = None,
    guard: Callable[[], None] = lambda: None,
) -> str:
    """Write a plain Ultralytics checkpoint of `model` (the student's nn.Module: no teacher, no projector), which
    `YOLO(path)` loads, and return the file's SHA-256.

    As after Ultralytics' strip_optimizer: fp16, no gradients, no criterion, no optimizer. `model` itself is left as
    it is. The file appears as a whole or not at all; `guard` is called before it does. Raises TrainerError.
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
    content = stream.getvalue()
    atomic_write(path, content, guard)
    return hashlib.sha256(content).hexdigest()


def _on_cpu(model: Any) -> Any:
    # Tensors are moved while they are copied, so that no second model ever lies on the device.
    memo: dict[int, Any] = {}
    for tensor in [*model.parameters(), *model.buffers()]:
        data = tensor.detach().to("cpu", copy=True)
        memo[id(tensor)] = (
            torch.nn.Parameter(data, requires_grad=False) if isinstance(tensor, torch.nn.Parameter) else data
        )
    if getattr(model, "criterion", None) is not None:
        memo[id(model.criterion)] = None
    return copy.deepcopy(model, memo)
