"""One training step: forward and backward passes of all shards, and the optimizer step, if one is due. Gradients are
summed over ranks only then."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from distill_trainer.data.shards import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import train_mode
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.distillation.balance import NeckGradients
from distill_trainer.training.distillation.improvement import ends, evidence
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, OBJECTIVE, DistillTask, component_names
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.optimizer import MAX_GRADIENT_NORM, Schedule, remove_parameters
from distill_trainer.training.parallel.collectives import all_reduce_async, no_sync, replicate
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.parallel.shards import frozen_running_statistics, seed_shard
from distill_trainer.training.preprocess import Preprocess
from distill_trainer.training.state import TrainingState

log = logging.getLogger(__name__)


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


class Step:
    """Runs training steps. Epochs, commits and validation are the loop's."""

    def __init__(
        self,
        state: TrainingState,
        schedule: Schedule,
        *,
        teacher: Teacher | None,
        distillation: DistillationPlan,
        precision: Precision,
        preprocess: Preprocess,
        shards: Shards,
        environment: Environment,
    ) -> None:
        """`state`: a fresh or resumed one. `teacher`: freed when distillation ends, so pass the only reference."""
        self.state, self._schedule, self._teacher = state, schedule, teacher
        self._distillation, self._precision, self._preprocess = distillation, precision, preprocess
        self._weight = distillation.weight
        self._shards, self._environment = shards, environment
        self._task, self._optimizer, self._scaler = state.task, state.optimizer, state.scaler
        self._cosines: Sequence[float] = ()
        self._last_optimizer_step = state.progress.step - 1  # commits happen right after an optimizer step
        self._names = component_names(self._task)
        self._wrap_model()

    def run(self, step: int, batches: Sequence[dict[str, Any]], stop: bool, phases: Phases) -> StepResult:
        """Train on this rank's shard batches of global step `step`. `stop`: whether this rank has a stop request."""
        if not self._buckets_built:
            self._build_buckets(step, batches)
        self._begin_balance(step)
        self._schedule.apply(self._optimizer, step)
        signals = torch.zeros(1 + len(self._names), device=self._environment.device)
        signals[0] = float(stop)
        due = step - self._last_optimizer_step >= self._schedule.accumulate(step)
        pending = None
        for position, (shard, batch) in enumerate(zip(self._shards.local, batches, strict=True)):
            last = position == len(self._shards.local) - 1
            with no_sync(self._model, not (last and due)):
                losses = self._forward(step, shard, batch, phases)
                signals[1:] += torch.stack([losses[name].float() for name in self._names]) / self._shards.count
                if last:  # started before the backward pass, to overlap with it
                    pending = all_reduce_async(signals)
                with phases.measure("backward"):
                    self._scaler.scale(losses[OBJECTIVE]).backward()
        if pending is not None:
            pending.wait()
        self._end_balance()
        with phases.measure("optimizer"):
            result = self._finish(step, signals, due)
        if self._weight.over(step + 1) and not self._weight.over(step):
            self._end_distillation()
        return result

    def ends_accumulation(self, step: int, end: int) -> bool:
        """Whether the optimizer step at `step` is the last one before step `end`."""
        return step + self._schedule.accumulate(step) >= end

    def begin_epoch(self, epoch: int) -> None:
        """Prepare for an epoch (from 0): set training mode, and the epoch of Ultralytics' criterion."""
        train_mode(self._task.student_model, self._task.student_model.args.freeze)
        self._task.begin_epoch(epoch)

    def end_epoch(self) -> None:
        """Look at the epoch's distillation loss, and end distillation if it hardly improves. Every rank decides alike,
        and so does a run that is resumed here: the losses are those of all shards.
        """
        progress, cosines = self.state.progress, self._cosines
        if self._teacher is None:
            return
        before, now = progress.last_distillation_loss, progress.mean_losses().get(DISTILLATION_LOSS)
        progress.last_distillation_loss = now
        progress.distillation_ended = ends(before, now, least := self._distillation.min_improvement)
        if self._environment.is_main:
            log.info("%s", evidence(progress.epochs_finished + 1, before, now, cosines))
            if progress.distillation_ended:
                log.info("distillation ends at step %d: the loss fell by less than %g", progress.step, least)
        if progress.distillation_ended:
            self._end_distillation()

    def _wrap_model(self) -> None:
        """Wrap the task in DDP, and collect its trained parameters."""
        self._model = replicate(self._task, self._environment)
        self._parameters = self._task.trained_parameters()
        self._clipped = clip_groups(self._task)
        self._buckets_built = self._environment.world_size <= 2  # the sum of two ranks does not depend on the order

    def _end_distillation(self) -> None:
        """Free teacher and projector; later steps and commits do not have them.

        At the end of its schedule this runs right after the last step with a weight and before its commit, so that a
        run resumed from that commit has neither. At the end of an epoch, `end_epoch` decides again in a run that is
        resumed from the epoch's last commit. Gradients that the projector has accumulated are dropped.
        """
        self._teacher = None
        if (projector := self._task.projector) is not None:
            self._task.projector = self._task.balance = None
            remove_parameters(self._optimizer, projector.parameters())
            self._model, self._parameters, self._clipped = self._task, [], []
            gc.collect()  # free the old DDP wrapper and its gradient hooks before there is a new one
            self._wrap_model()
        del projector
        gc.collect()
        if self._environment.device.type == "cuda":
            torch.cuda.empty_cache()

    def _build_buckets(self, step: int, batches: Sequence[dict[str, Any]]) -> None:
        """Run one backward pass without effect, so that DDP rebuilds its gradient buckets before the first step.

        DDP rebuilds its buckets after the first backward pass, and with more than two ranks the order in which gloo and
        nccl sum gradients depends on the buckets. Without this, a resumed run's first step would round differently.
        Accumulated gradients are kept.
        """
        # Copy them: a gradient can be a view of a bucket, which this pass overwrites.
        accumulated = [None if p.grad is None else p.grad.clone() for p in self._parameters]
        self._optimizer.zero_grad()
        with frozen_running_statistics(self._task):
            losses = self._forward(step, -1, batches[-1], Phases())
            (losses[OBJECTIVE] * 0.0).backward()
        self._optimizer.zero_grad()
        for parameter, gradient in zip(self._parameters, accumulated, strict=True):
            parameter.grad = gradient
        self._buckets_built = True

    def _forward(self, step: int, shard: int, batch: dict[str, Any], phases: Phases) -> dict[str, Tensor]:
        with phases.measure("data"):
            batch = self._preprocess(batch, step)
        with phases.measure("teacher"):
            teacher_output = self._teacher.infer(batch["img"]) if self._teacher is not None else None
        seed_shard(self._preprocess.seed, step, max(shard, 0))
        statistics = nullcontext() if shard == 0 else frozen_running_statistics(self._task)
        with phases.measure("forward"), self._precision.autocast(), statistics:
            losses: dict[str, Tensor] = self._model(batch, teacher_output, self._weight.at(step))
        return losses

    def _begin_balance(self, step: int) -> None:
        if self._task.balance is not None:
            self._task.balance.begin_step(self._weight.at(step))

    def _end_balance(self) -> None:
        """Average the gradients at the neck over all ranks, without the factors that are not the losses' own."""
        balance = self._task.balance
        if balance is None:
            return
        factor = self._scaler.get_scale() if self._scaler.is_enabled() else 1.0
        measured = balance.measured() / factor**2
        if (pending := all_reduce_async(measured)) is not None:
            pending.wait()
        balance.end_step(measured)

    def _finish(self, step: int, signals: Tensor, due: bool) -> StepResult:
        norm: float | None = None
        neck: list[float] = []
        if due:
            self._scaler.unscale_(self._optimizer)
            norms = [clip_grad_norm_(parameters, MAX_GRADIENT_NORM) for parameters in self._clipped]
            total = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
            balance = self._task.balance
            summary = balance.summary() if balance is not None else signals[:0]
            read = torch.cat([total.reshape(1).to(signals), signals, summary.to(signals)]).tolist()
            norm, (stop, *losses), neck = read[0], read[1 : 1 + len(signals)], read[1 + len(signals) :]
            self._optimizer_step(finite=math.isfinite(norm))
            self._last_optimizer_step = step
        else:
            stop, *losses = signals.tolist()
        self._cosines = neck[len(neck) // 2 :] or self._cosines
        return StepResult(
            losses=dict(zip(self._names, losses, strict=True)),
            stop=stop > 0,
            optimizer_stepped=due,
            skipped=norm is not None and not math.isfinite(norm),
            gradient_norm=norm,
            neck=NeckGradients(neck[: len(neck) // 2], neck[len(neck) // 2 :]) if neck else None,
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
            self._restore_buffers()

    def _restore_buffers(self) -> None:
        """Replace non-finite running statistics by those of the EMA, which was not updated in this step."""
        averages = dict(self.state.ema.ema.named_buffers())
        for name, buffer in self._task.student_model.named_buffers():
            if buffer.is_floating_point() and not torch.isfinite(buffer).all():
                buffer.copy_(averages[name])


def clip_groups(task: DistillTask) -> list[list[nn.Parameter]]:
    """Parameters whose gradients are clipped together: all, as in Ultralytics; with a balance the projector apart,
    whose gradient it does not scale.
    """
    trained = task.trained_parameters()
    if task.balance is None or task.projector is None:
        return [trained]
    apart = {id(parameter) for parameter in task.projector.parameters()}
    return [[p for p in trained if id(p) not in apart], [p for p in trained if id(p) in apart]]
