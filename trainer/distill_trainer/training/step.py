"""One step: every shard forwards and backwards, one collective tells who wants to stop, the optimizer moves."""

from __future__ import annotations

import gc
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from distill_trainer.data.shards import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import train_mode
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.distillation.schedule import WeightSchedule
from distill_trainer.training.distillation.task import OBJECTIVE, component_names
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.optimizer import MAX_GRADIENT_NORM, Schedule, forget
from distill_trainer.training.parallel.collectives import gradients_stay_local, replicate, sum_over_ranks
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.parallel.shards import running_statistics, seed_shard
from distill_trainer.training.preprocess import Preprocess
from distill_trainer.training.state import TrainingState


@dataclass(frozen=True)
class StepResult:
    """What a step did, the same on every rank."""

    losses: dict[str, float]
    """Mean over all shards, by component."""
    stop: bool
    """Whether any rank has been asked to stop."""
    optimizer_stepped: bool
    """Whether the optimizer was due: False while gradients accumulate."""
    skipped: bool
    """Whether the optimizer was due but the gradients were not finite, so that nothing changed."""
    gradient_norm: float | None
    """Before clipping; None while gradients accumulate."""


class Step:
    """Runs steps. Holds everything a step changes; decides nothing about epochs, commits or validation."""

    def __init__(
        self,
        state: TrainingState,
        schedule: Schedule,
        *,
        teacher: Teacher | None,
        weight: WeightSchedule,
        precision: Precision,
        preprocess: Preprocess,
        shards: Shards,
        environment: Environment,
    ) -> None:
        """`state` as a fresh start or a resume has left it, at a step of the optimizer. The teacher is this step's
        alone, to give back.
        """
        self.state, self._schedule, self._teacher = state, schedule, teacher
        self._weight, self._precision, self._preprocess = weight, precision, preprocess
        self._shards, self._environment = shards, environment
        self._task, self._optimizer, self._scaler = state.task, state.optimizer, state.scaler
        self._last_optimizer_step = state.progress.step - 1  # commits happen right after a step of the optimizer
        self._names = component_names(self._task)
        self._learn()

    def run(self, step: int, batches: Sequence[dict[str, Any]], stop: bool, phases: Phases) -> StepResult:
        """Train on this rank's shard batches of global step `step`; `stop` is this rank's wish to end."""
        if not self._primed:
            self._prime(step, batches)
        self._schedule.apply(self._optimizer, step)
        signals = torch.zeros(1 + len(self._names), device=self._environment.device)
        signals[0] = float(stop)
        pending = None
        for position, (shard, batch) in enumerate(zip(self._shards.mine, batches, strict=True)):
            last = position == len(self._shards.mine) - 1
            with gradients_stay_local(self._model, not last):
                losses = self._forward(step, shard, batch, phases)
                signals[1:] += torch.stack([losses[name].float() for name in self._names]) / self._shards.count
                if last:  # sent before the backward pass, so that it costs no time of its own
                    pending = sum_over_ranks(signals)
                with phases.measure("backward"):
                    # DDP averages over ranks where Ultralytics' loss means a sum over shards.
                    objective = losses[OBJECTIVE] * self._environment.world_size
                    self._scaler.scale(objective).backward()
        if pending is not None:
            pending.wait()
        with phases.measure("optimizer"):
            result = self._finish(step, signals)
        if self._weight.over(step + 1) and not self._weight.over(step):
            self._end_distillation()
        return result

    def ends_accumulation(self, step: int, end: int) -> bool:
        """Whether no further move of the optimizer is due between the move at `step` and step `end`."""
        return step + self._schedule.accumulate(step) >= end

    def begin_epoch(self, epoch: int) -> None:
        """Set what changes from epoch to epoch, from 0: training mode, and what Ultralytics' criterion counts."""
        train_mode(self._task.student_model, self._task.student_model.args.freeze)
        self._task.begin_epoch(epoch)

    def _learn(self) -> None:
        """Train the parameters of the task as they are now, through a new replica."""
        self._model = replicate(self._task, self._environment)
        self._parameters = self._task.trained_parameters()
        self._primed = self._environment.world_size <= 2  # two summands have one order

    def _end_distillation(self) -> None:
        """Give teacher and projector back, so that every later step is a plain step and every later commit holds none.

        Runs right after the last step with a weight, before a commit of it: a run that is resumed from such a commit
        has never had them. What the projector had accumulated but not yet moved is lost with it.
        """
        self._teacher = None
        if (projector := self._task.projector) is not None:
            self._task.projector = None
            forget(self._optimizer, projector.parameters())
            self._model, self._parameters = self._task, []
            gc.collect()  # the old replica's hooks on the student's gradients go with it, before there is a new one
            self._learn()
        del projector
        gc.collect()
        if self._environment.device.type == "cuda":
            torch.cuda.empty_cache()

    def _prime(self, step: int, batches: Sequence[dict[str, Any]]) -> None:
        """Run one backward pass and forget it, so that DDP settles its gradient buckets before the first real step.

        DDP regroups its buckets after the first backward pass; the order in which gloo and nccl add up more than two
        ranks depends on the grouping. Without this, a resumed run's first step would round differently. What has been
        accumulated stays.
        """
        # Copies, for a gradient may be a view of a bucket, which the pass overwrites.
        accumulated = [None if p.grad is None else p.grad.clone() for p in self._parameters]
        self._optimizer.zero_grad()
        with running_statistics(self._task, update=False):
            losses = self._forward(step, -1, batches[-1], Phases())
            (losses[OBJECTIVE] * 0.0).backward()
        self._optimizer.zero_grad()
        for parameter, gradient in zip(self._parameters, accumulated, strict=True):
            parameter.grad = gradient
        self._primed = True

    def _forward(self, step: int, shard: int, batch: dict[str, Any], phases: Phases) -> dict[str, Tensor]:
        with phases.measure("data"):
            batch = self._preprocess(batch, step)
        with phases.measure("teacher"):
            seen = self._teacher.infer(batch["img"]) if self._teacher is not None else None
        seed_shard(self._preprocess.seed, step, max(shard, 0))
        statistics = nullcontext() if shard == 0 else running_statistics(self._task, update=False)
        with phases.measure("forward"), self._precision.autocast(), statistics:
            losses: dict[str, Tensor] = self._model(batch, seen, self._weight.at(step))
        return losses

    def _finish(self, step: int, signals: Tensor) -> StepResult:
        optimizer_stepped = step - self._last_optimizer_step >= self._schedule.accumulate(step)
        norm: float | None = None
        if optimizer_stepped:
            self._scaler.unscale_(self._optimizer)
            total = clip_grad_norm_(self._parameters, MAX_GRADIENT_NORM)
            norm, stop, *losses = torch.cat([total.reshape(1).to(signals), signals]).tolist()
            self._optimizer_step(finite=math.isfinite(norm))
            self._last_optimizer_step = step
        else:
            stop, *losses = signals.tolist()
        return StepResult(
            losses=dict(zip(self._names, losses, strict=True)),
            stop=stop > 0,
            optimizer_stepped=optimizer_stepped,
            skipped=norm is not None and not math.isfinite(norm),
            gradient_norm=norm,
        )

    def _optimizer_step(self, finite: bool) -> None:
        if finite:
            self._scaler.step(self._optimizer)
        if self._scaler.is_enabled():
            self._scaler.update()
        self._optimizer.zero_grad()
        if finite:
            self.state.ema.update(self._task.student_model)
        else:
            self._heal_buffers()

    def _heal_buffers(self) -> None:
        """Replace running statistics that the bad batch made non-finite by their averages, which never saw it."""
        averages = dict(self.state.ema.ema.named_buffers())
        for name, buffer in self._task.student_model.named_buffers():
            if buffer.is_floating_point() and not torch.isfinite(buffer).all():
                buffer.copy_(averages[name])
