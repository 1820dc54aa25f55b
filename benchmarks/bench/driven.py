"""How the measured steps are driven: as the training loops drive them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import torch
from torch import Tensor
from ultralytics.utils.torch_utils import init_seeds

from distill_trainer.models.precision import use_fast_kernels
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.device.results import Results, StepResult
from distill_trainer.training.device.upload import Uploads
from distill_trainer.training.step import Step

Batch = dict[str, Any]
FAST = "fast"
"""The profile of training.deterministic: false; without a word it is the exact one."""


@dataclass
class Ran:
    """What came of some steps."""

    losses: list[dict[str, float]] = field(default_factory=list)
    """Of this project's steps, one by one."""
    phases: dict[str, float] = field(default_factory=dict)
    """Seconds of all steps, by phase."""

    def absorb(self, result: StepResult | None, phases: dict[str, float]) -> None:
        """Add a step."""
        if result is not None:
            self.losses.append(result.losses)
        for phase, seconds in phases.items():
            self.phases[phase] = self.phases.get(phase, 0.0) + seconds


Run = Callable[[int], Ran]
"""Makes so many steps more."""


def use_profile(name: str, device: torch.device, *, own: bool) -> None:
    """Let this process compute as a job of this profile does on a GPU, Ultralytics' `deterministic` alike. `own`: for
    this project's steps. On CPUs, where there is one profile, without effect.
    """
    if device.type != "cuda":
        return
    init_seeds(0, deterministic=name != FAST)
    if name == FAST and own:
        use_fast_kernels()


def pinned(batches: Sequence[Batch], device: torch.device) -> list[Batch]:
    """Batches as data loaders hand them over: on GPUs in pinned memory."""
    if device.type != "cuda":
        return list(batches)
    return [
        {name: value.pin_memory() if isinstance(value, Tensor) else value for name, value in batch.items()}
        for batch in batches
    ]


def as_our_loop(step: Step, batches: Sequence[Batch], on_step: Callable[[Phases], None]) -> Run:
    """Steps as the trainer's loop makes them: where it is late, a result is read when the next step is queued, and the
    next batch is uploaded meanwhile. `on_step` is called with the phases before each step.
    """
    numbers = count()
    endless: Iterator[list[Batch]] = ([batches[number % len(batches)]] for number in count())
    uploads = Uploads(endless, step.preprocess, 0, ahead=step.late)

    def run(steps: int) -> Ran:
        ran, phases = Ran(), Phases.on(step.preprocess.device, lambda _: None)
        results = Results(step.late, ran.absorb)
        for _ in range(steps):
            with phases.measure("data"):
                taken = uploads.take()
            on_step(phases)
            pending = step.run(next(numbers), taken, False, phases)
            with phases.measure("data"):
                uploads.load_next()
            results.add(pending, phases.take())
        results.drain()
        return ran

    return run


class ProgressBar:
    """What Ultralytics' loop does with a step's losses: it keeps their means, and writes them into a text at once."""

    def __init__(self) -> None:
        self._means: dict[str, Any] | None = None
        self._steps = 0

    def update(self, losses: dict[str, Any]) -> str:
        """The text, for which the host waits."""
        before, done = self._means, self._steps
        self._means = losses if before is None else {k: (before[k] * done + v) / (done + 1) for k, v in losses.items()}
        self._steps += 1
        return "".join(f"{float(value):11.4g}" for value in self._means.values())
