"""Measures the cost of a model: parameters, GFLOPs and latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import get_cpu_info, get_flops, get_gpu_info, get_num_params

_WARM_UP, _MIN_PASSES, _MAX_PASSES, _SECONDS = 3, 5, 30, 5.0
"""Uncounted passes, minimum and maximum of counted passes, and the seconds after which the minimum is enough."""


@dataclass(frozen=True)
class ModelCost:
    """Cost of the fused model in fp32, with the head that Ultralytics validates by default."""

    parameters: int
    gflops: float | None
    """For one image; None if they cannot be counted."""
    latency_ms: float
    """Median time of a forward pass for one image, without non-maximum suppression."""


def measure(
    model: Any,
    *,
    imgsz: int,
    channels: int,
    device: torch.device,
    check_stop: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> ModelCost:
    """Fuse `model` in place (it cannot be trained afterwards) and measure it with images [1, channels, imgsz, imgsz].

    `check_stop` is called before each pass and may raise.
    """
    if getattr(model, "end2end", False):
        model.end2end = False
    model = model.float().eval().to(device).fuse(verbose=False)
    parameters, gflops = int(get_num_params(model)), float(get_flops(model, imgsz))
    image = torch.rand(1, channels, imgsz, imgsz, device=device)
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < _WARM_UP + _MAX_PASSES:
            check_stop()
            _synchronize(device)
            started = clock()
            model(image)
            _synchronize(device)
            times.append(clock() - started)
            if len(times) >= _WARM_UP + _MIN_PASSES and sum(times) > _SECONDS:
                break
    counted = times[_WARM_UP:]
    return ModelCost(parameters, gflops or None, 1000 * statistics.median(counted))


def device_name(device: torch.device) -> str:
    """The device's human-readable name."""
    return str(get_gpu_info(device.index or 0) if device.type == "cuda" else get_cpu_info())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
