"""What a model costs: parameters, operations, and how long one image takes here."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from ultralytics.utils.torch_utils import get_cpu_info, get_flops, get_gpu_info, get_num_params

_WARM_UP, _FEWEST, _MOST, _SECONDS = 3, 5, 30, 5.0
"""Passes that are not counted; passes at least and at most; and the time after which the least is enough."""


@dataclass(frozen=True)
class ModelCost:
    """Of a model as it is used: fused, in fp32, with the head that Ultralytics validates by default."""

    parameters: int
    gflops: float | None
    """For one image; None where they cannot be counted."""
    latency_ms: float
    """Median time of a forward pass for one image, without non-maximum suppression."""
    passes: int
    """How many the median is of."""


def measure(
    model: Any,
    *,
    imgsz: int,
    channels: int,
    device: torch.device,
    moved: Callable[[], None],
    clock: Callable[[], float] = time.perf_counter,
) -> ModelCost:
    """Fuse `model`, which cannot be trained afterwards, and measure it with images [1, channels, imgsz, imgsz].

    `moved` is called before each pass and may raise.
    """
    if getattr(model, "end2end", False):
        model.end2end = False
    model = model.float().eval().to(device).fuse(verbose=False)
    parameters, gflops = int(get_num_params(model)), float(get_flops(model, imgsz))
    image = torch.rand(1, channels, imgsz, imgsz, device=device)
    times: list[float] = []
    with torch.inference_mode():
        while len(times) < _WARM_UP + _MOST:
            moved()
            _synchronize(device)
            began = clock()
            model(image)
            _synchronize(device)
            times.append(clock() - began)
            if len(times) >= _WARM_UP + _FEWEST and sum(times) > _SECONDS:
                break
    counted = times[_WARM_UP:]
    return ModelCost(parameters, gflops or None, 1000 * statistics.median(counted), len(counted))


def device_name(device: torch.device) -> str:
    """The device's name for people."""
    return str(get_gpu_info(device.index or 0) if device.type == "cuda" else get_cpu_info())


def _synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
