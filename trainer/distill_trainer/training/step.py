"""One training step: forward and backward passes of all shards, and the optimizer step, if one is due. Gradients are
summed over ranks only then."""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from distill_trainer.data.loading.shards import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import train_mode
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.device.gate import Buffers, optimizer_tensors, undone_unless
from distill_trainer.training.device.preprocess import Preprocess
from distill_trainer.training.device.results import Pending, StepResult
from distill_trainer.training.device.upload import Uploaded
from distill_trainer.training.distillation.balance import NeckGradients
from distill_trainer.training.distillation.improvement import ends, evidence
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, OBJECTIVE, DistillTask, component_names
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.optimizer import MAX_GRADIENT_NORM, Schedule, remove_parameters
from distill_trainer.training.parallel import musgd
from distill_trainer.training.parallel.collectives import all_reduce_async, no_sync, replicate
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.parallel.shards import frozen_running_statistics, seed_shard
from distill_trainer.training.saving.state import TrainingState

log = logging.getLogger(__name__)


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
        late: bool = False,
    ) -> None:
        """`state`: a fresh or resumed one. `teacher`: freed when distillation ends, so pass the only reference. `late`:
        the host does not wait for the result of a step before it has queued the next one.
        """
        self.state, self._schedule, self._teacher = state, schedule, teacher
        self._distillation, self._precision, self.preprocess = distillation, precision, preprocess
        self.late = late
        self._weight = distillation.weight
        self._shards, self._environment = shards, environment
        self._task, self._optimizer, self._scaler = state.task, state.optimizer, state.scaler
        self._averages = [value for value in state.ema.ema.state_dict().values() if value.is_floating_point()]
        self._buffers = Buffers(state.task.student_model, state.ema.ema)
        self._pending: Pending | None = None
        self._cosines: Sequence[float] = ()
        self._last_optimizer_step = state.progress.step - 1  # commits happen right after an optimizer step
        self._names = component_names(self._task)
        self._wrap_model()

    def run(self, step: int, batches: Sequence[dict[str, Any] | Uploaded], stop: bool, phases: Phases) -> Pending:
        """Train on this rank's shard batches of global step `step`. `stop`: whether this rank has a stop request.

        Until the result is read, the state may be of a step that is still running, and its count of updates too high.
        """
        if not self._buckets_built:
            self._build_buckets(step, batches)
        self._begin_balance(step)
        self._schedule.apply(self._optimizer, step)
        signals = torch.zeros(1 + len(self._names), device=self._environment.device)
        signals[0] = float(stop)
        due = step - self._last_optimizer_step >= self._schedule.accumulate(step)
        sent = None
        for position, (shard, batch) in enumerate(zip(self._shards.local, batches, strict=True)):
            last = position == len(self._shards.local) - 1
            with no_sync(self._model, not (last and due)):
                losses = self._forward(step, shard, batch, phases)
                signals[1:] += torch.stack([losses[name].float() for name in self._names]) / self._shards.count
                if last:  # started before the backward pass, to overlap with it
                    sent = all_reduce_async(signals)
                with phases.measure("backward"):
                    self._scaler.scale(losses[OBJECTIVE]).backward()
        if sent is not None:
            sent.wait()
        self._end_balance()
        with phases.measure("optimizer"):
            self._pending = self._finish(step, signals, due)
        if self._weight.over(step + 1) and not self._weight.over(step):
            self._end_distillation()
        return self._pending

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

    def _build_buckets(self, step: int, batches: Sequence[dict[str, Any] | Uploaded]) -> None:
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

    def _forward(self, step: int, shard: int, loaded: dict[str, Any] | Uploaded, phases: Phases) -> dict[str, Tensor]:
        with phases.measure("data"):
            uploaded = loaded if isinstance(loaded, Uploaded) else Uploaded(self.preprocess(loaded, step))
            batch = uploaded.synchronize()
        teacher = self._teacher
        with phases.measure("teacher", teacher.stream if teacher is not None else None):
            teacher_output = teacher.infer(batch["img"], uploaded.ready) if teacher is not None else None
        seed_shard(self.preprocess.seed, step, max(shard, 0))
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
        measured = balance.measured()
        if (factor := self._amp_scale()) is not None:
            measured = measured / factor**2
        if (pending := all_reduce_async(measured)) is not None:
            pending.wait()
        balance.end_step(measured)

    def _finish(self, step: int, signals: Tensor, due: bool) -> Pending:
        values, on_device = [signals], self.late and bool(self._optimizer.state)
        if due:
            self._scaler.unscale_(self._optimizer)
            norms = [clip_grad_norm_(parameters, MAX_GRADIENT_NORM) for parameters in self._clipped]
            norm = norms[0] if len(norms) == 1 else torch.stack(norms).norm()
            if on_device:
                self._optimizer_step_on_device(norm.isfinite())
            else:  # what the first step creates must not exist if it is skipped
                self._optimizer_step(norm.isfinite())
            if self._scaler.is_enabled():
                self._scaler.update()
            self._optimizer.zero_grad()
            self._last_optimizer_step = step
            scale, balance = self._amp_scale(), self._task.balance
            values += [norm.reshape(1), *([scale.reshape(1)] if scale is not None else [])]
            values += [balance.summary()] if balance is not None else []
        read = torch.cat([value.to(signals) for value in values])
        return Pending(read, partial(self._result, due, on_device), optimizer_stepped=due)

    def _result(self, due: bool, on_device: bool, values: list[float]) -> StepResult:
        stop, *rest = values
        losses, rest = dict(zip(self._names, rest, strict=False)), rest[len(self._names) :]
        if not due:
            return StepResult(losses, stop > 0, optimizer_stepped=False, skipped=False, gradient_norm=None)
        norm, *rest = rest
        scale, neck = (rest[0], rest[1:]) if self._scaler.is_enabled() else (None, rest)
        finite, levels = math.isfinite(norm), len(neck) // 2
        if on_device and not finite:
            self.state.ema.updates -= 1  # counted, but undone on the device
        self._cosines = neck[levels:] or self._cosines
        return StepResult(
            losses,
            stop > 0,
            optimizer_stepped=True,
            skipped=not finite,
            gradient_norm=norm,
            neck=NeckGradients(neck[:levels], neck[levels:]) if neck else None,
            amp_scale=scale,
        )

    def _optimizer_step(self, finite: Tensor) -> None:
        """Scaled gradients have been unscaled: the scaler's own step would only ask again whether they are finite."""
        if bool(finite):
            musgd.step(self._optimizer, self._environment)
            self.state.ema.update(self._task.student_model)
        else:  # the average was not updated in this step
            self._buffers.restore_unless(finite)

    def _optimizer_step_on_device(self, finite: Tensor) -> None:
        """The same without a host that waits: an optimizer step that is undone where gradients were not finite."""
        if self._pending is not None:
            self._pending.read()  # how the average weighs this step depends on the steps that were skipped before
        with undone_unless(finite, [*optimizer_tensors(self._optimizer), *self._averages]):
            self._optimizer.step()
            self.state.ema.update(self._task.student_model)
        self._buffers.restore_unless(finite)

    def _amp_scale(self) -> Tensor | None:
        """The loss scale, with fp16, on the device."""
        if not self._scaler.is_enabled():
            return None
        scale: Tensor = self._scaler.scale(torch.ones((), device=self._environment.device))
        return scale


def clip_groups(task: DistillTask) -> list[list[nn.Parameter]]:
    """Parameters whose gradients are clipped together: all, as in Ultralytics; with a balance the projector apart,
    whose gradient it does not scale.
    """
    trained = task.trained_parameters()
    if task.balance is None or task.projector is None:
        return [trained]
    apart = {id(parameter) for parameter in task.projector.parameters()}
    return [[p for p in trained if id(p) not in apart], [p for p in trained if id(p) in apart]]
