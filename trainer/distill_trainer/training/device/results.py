"""The results of steps, and when they are read.

Reading makes the host wait for the device, which then has nothing to do until the host has queued more. So on CUDA a
step's result is read when the next step is queued.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from distill_trainer.process.telemetry.phases import PhaseTimes
from distill_trainer.training.distillation.balance import NeckGradients


@dataclass(frozen=True)
class StepResult:
    """The result of a step, the same on every rank."""

    losses: dict[str, float]
    """Mean over all shards, by component."""
    stop: bool
    """Whether any rank has a stop request."""
    optimizer_stepped: bool
    """Whether an optimizer step was due: False while gradients accumulate."""
    skipped: bool
    """Whether the optimizer step was skipped because of non-finite gradients."""
    gradient_norm: float | None
    """Norm before clipping; None while gradients accumulate."""
    neck: NeckGradients | None = None
    """With a balance, while gradients do not accumulate."""
    amp_scale: float | None = None
    """Loss scale after the step, with fp16, while gradients do not accumulate."""


class Pending:
    """The result of a step that the device may still be computing."""

    def __init__(
        self, values: Tensor, interpret: Callable[[list[float]], StepResult], *, optimizer_stepped: bool
    ) -> None:
        """Start copying `values` [N] to the host. `interpret` is called once, by the first `read`."""
        self.optimizer_stepped = optimizer_stepped
        self._interpret, self._result = interpret, None
        self._values = values.detach().to("cpu", non_blocking=True)  # into pinned memory
        self._copied = torch.cuda.current_stream(values.device).record_event() if values.is_cuda else None

    _result: StepResult | None

    def read(self) -> StepResult:
        """The result. The first call waits for the device."""
        if self._result is None:
            if self._copied is not None:
                self._copied.synchronize()
            self._result = self._interpret(self._values.tolist())
        return self._result


class Results:
    """Reads each step's result once, in order, and says on which one all ranks act.

    A rank may read the newest result at any time, but when ranks act on one must not depend on that: they would stop at
    different steps.
    """

    def __init__(self, late: bool, absorb: Callable[[StepResult, dict[str, float]], None]) -> None:
        """`late`: read a result when the next step is queued. `absorb` is called with each result and the seconds of
        its step by phase.
        """
        self._late, self._absorb = late, absorb
        self._unread: tuple[Pending, PhaseTimes] | None = None
        self._last: StepResult | None = None

    def add(self, pending: Pending, phases: PhaseTimes) -> StepResult | None:
        """Take the newest step's result. Returns the one to act on now: this one or, late, the one before."""
        if not self._late:
            self._unread = pending, phases
            return self.drain()
        before = self.drain()
        self._unread = pending, phases
        return before

    def drain(self) -> StepResult | None:
        """Read all results. Returns the newest one; None before the first step. All ranks may act on it only where all
        of them call this.
        """
        if self._unread is not None:
            (pending, phases), self._unread = self._unread, None
            self._last = pending.read()
            self._absorb(self._last, phases.read())
        return self._last
