"""Gives the student its first weights from the teacher: rank 0 computes them, and the others wait for as long as it
makes progress.
"""

from __future__ import annotations

import logging
import time

import torch
from torch import Tensor

from distill_trainer.data.datasets.calibration import calibration_images
from distill_trainer.models.inherit.weights import Inheritance
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.build import Saved, Setup
from distill_trainer.training.parallel.collectives import broadcast_state

log = logging.getLogger(__name__)

_PHASE = "inheriting the teacher's weights"
_WORD_SECONDS = 5.0


class _Progress:
    """Tells this rank's watchdog and the waiting ranks that rank 0 has done a further part of its work."""

    def __init__(self, context: RankContext, device: torch.device) -> None:
        self._context, self._device = context, device
        self._told_at = time.monotonic()

    def __call__(self) -> None:
        if not _beat(self._context):
            return
        now = time.monotonic()
        if now - self._told_at >= _WORD_SECONDS:
            self._told_at = now
            broadcast_state({}, self._device)


def _beat(context: RankContext) -> bool:
    """Tell the watchdog of progress, unless this rank is to stop: nothing is lost yet if the watchdog ends it then."""
    if not context.stop.requested:
        context.watchdog.beat(_PHASE)
    return not context.stop.requested


def inherit_weights(setup: Setup, saved: Saved) -> None:
    """Take the student's first weights from the teacher, if the job says so and the run begins.

    Rank 0 computes them and sends them to the others, so that they do not depend on the number of ranks. A collective
    would fail before large models are fitted on CPUs, so rank 0 sends a word every few seconds.
    """
    prepared, context, device = setup.prepared, setup.context, setup.environment.device
    if prepared.inherited is None or saved.state is not None:
        return
    context.watchdog.beat(_PHASE)
    if setup.environment.is_main:
        received = broadcast_state(_computed(setup, _Progress(context, device)), device)
    else:
        while not (received := broadcast_state(None, device)):
            _beat(context)
    assert received is not None
    prepared.student.load_state_dict(received["weights"])
    prepared.inherited = received["inherited"]


def _computed(setup: Setup, progress: _Progress) -> dict[str, object]:
    """The student's weights, and what was inherited."""
    prepared, inherit, device = setup.prepared, setup.spec.student.inherit, setup.environment.device
    assert prepared.teacher is not None
    started = time.perf_counter()
    # Traced on the device: moving a model there replaces its buffers.
    student, teacher = prepared.student.to(device), prepared.teacher.to(device)
    images = _calibration_images(setup)
    inherited = Inheritance.of(student, teacher).copy(inherit.channels, images, progress)
    if (fitted := inherited.fitted) is not None:
        log.info(
            "first weights fitted to the teacher's layers on %d training images in %.1f s: they explain %.1f %% of"
            " the variance of what these give, %.1f %% as they were copied",
            fitted.images,
            time.perf_counter() - started,
            100 * fitted.fitted,
            100 * fitted.copied,
        )
    return {"weights": prepared.student.state_dict(), "inherited": inherited}


def _calibration_images(setup: Setup) -> Tensor | None:
    """Images to fit the student's first weights on; None if they are only copied."""
    prepared, images = setup.prepared, setup.spec.student.inherit.images
    if images == 0:
        return None
    shape = {"imgsz": prepared.imgsz, "stride": prepared.stride, "images": images}
    return calibration_images(prepared.dataset, setup.spec.training, **shape).to(setup.environment.device)
