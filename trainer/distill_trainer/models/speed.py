"""How fast a device computes a teacher's convolutions in a number format."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from statistics import median

import torch
from torch import Tensor
from torch.nn import functional

CONVOLUTIONS = ((256, 1, 40), (256, 3, 20), (64, 3, 80))
"""Channels, kernel size, and height and width of the features: a YOLO's at 640 px. 1.4 GFLOP an image together."""
CUDA_IMAGES = 32
"""Images at a time on a GPU, so that it computes for longer than a kernel takes to start."""
ROUNDS = 7
BUDGET_SECONDS = 0.5
"""No round begins later; one is always measured."""
PASS_SECONDS = 0.25
"""A CPU that takes longer emulates the format, and is not measured any further."""

Layer = tuple[Tensor, Tensor, int]
"""Image, weight and padding of a convolution."""


def seconds_by_format(device: torch.device, dtypes: Sequence[torch.dtype]) -> list[float]:
    """Seconds of the CONVOLUTIONS with their activations in each of `dtypes`, the median of several rounds in which the
    formats take turns; infinite if the device cannot compute them in any reasonable time.

    On a CPU these are seconds of one thread's CPU time, so that other work on the machine hardly matters. Uses no
    global random numbers.
    """
    convolutions = [_convolutions(device, dtype) for dtype in dtypes]
    rounds: list[list[float]] = []
    began = time.perf_counter()
    with _one_thread() if device.type == "cpu" else nullcontext():
        possible = [math.isfinite(_seconds(layers, device)) for layers in convolutions]  # and prepares kernels
        while not rounds or (len(rounds) < ROUNDS and time.perf_counter() - began < BUDGET_SECONDS):
            pairs = zip(convolutions, possible, strict=True)
            rounds.append([_seconds(layers, device) if can else math.inf for layers, can in pairs])
    return [median(seconds) for seconds in zip(*rounds, strict=True)]


def computes(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a convolution and its gradient can be computed in `dtype` at all, fast or not."""
    try:
        image = torch.ones(1, 8, 8, 8, device=device, dtype=dtype, requires_grad=True)
        functional.conv2d(image, torch.ones(8, 8, 3, 3, device=device, dtype=dtype)).sum().backward()
    except RuntimeError:
        return False
    return image.grad is not None and bool(torch.isfinite(image.grad).all())


def _convolutions(device: torch.device, dtype: torch.dtype) -> list[Layer]:
    images = CUDA_IMAGES if device.type == "cuda" else 1
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> Tensor:
        values = torch.rand(*shape, generator=generator)
        return values.to(device=device, dtype=dtype, memory_format=torch.channels_last)

    return [
        (random(images, channels, size, size), random(channels, channels, kernel, kernel), kernel // 2)
        for channels, kernel, size in CONVOLUTIONS
    ]


@torch.no_grad()
def _seconds(layers: Sequence[Layer], device: torch.device) -> float:
    """Seconds of one pass; infinite if the device cannot compute it, or a CPU takes more than PASS_SECONDS."""
    on_cpu = device.type == "cpu"
    clock = time.thread_time if on_cpu else time.perf_counter
    began = clock()
    try:
        with torch.autocast(device.type, enabled=False):
            for image, weight, padding in layers:
                functional.silu(functional.conv2d(image, weight, padding=padding))
                if on_cpu and clock() - began > PASS_SECONDS:
                    return math.inf
        if not on_cpu:
            torch.cuda.synchronize(device)
    except RuntimeError:
        return math.inf
    return clock() - began


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
