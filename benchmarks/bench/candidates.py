"""The training steps that step.py measures: this project's and Ultralytics'."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from itertools import count
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.engine.trainer import BaseTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.utils.torch_utils import ModelEMA

from benchmarks.bench.driven import ProgressBar, Ran, Run, as_our_loop, pinned
from distill_api.spec.distillation import Distillation
from distill_api.spec.recipe import AUTO
from distill_trainer.data import Shards
from distill_trainer.models.precision import Precision
from distill_trainer.models.student import neck_channels, train_mode
from distill_trainer.process.telemetry.phases import Phases
from distill_trainer.training.distillation.plan import DistillationPlan
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.schedule import SCHEDULES, WeightSchedule
from distill_trainer.training.distillation.task import Term
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.distillation.terms import ULTRALYTICS, terms_of
from distill_trainer.training.optimizer import TrainingPlan
from distill_trainer.training.parallel.environment import Environment
from distill_trainer.training.saving.state import TrainingState
from distill_trainer.training.step_builder import StepBuilder
from tests.support.models import build, preprocessed, shard_batch, teach

ULTRALYTICS_KINDS = ("ultralytics", "ultralytics-plain")
FORMATS = {"fp32": None, "bf16": torch.bfloat16}
NOMINAL_BATCH = 64
"""Images per optimizer step."""
OPTIMIZER = "MuSGD"
"""The choice of `auto` for more than 10,000 iterations."""
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Pair:
    """Student, teacher and sizes of a measurement."""

    student: str
    teacher: str
    imgsz: int
    batch: int

    @property
    def steps(self) -> int:
        """Steps per optimizer step."""
        return NOMINAL_BATCH // self.batch

    @property
    def title(self) -> str:
        return f"{self.student} <- {self.teacher}, {self.imgsz} px, batch {self.batch}"


PAIRS = {
    "n-s": Pair("yolo26n.yaml", "yolo26s.yaml", 320, 8),
    "s-m": Pair("yolo26s.yaml", "yolo26m.yaml", 256, 4),
}
GPU_PAIRS = {
    "n-s": Pair("yolo26n.yaml", "yolo26s.yaml", 640, 16),
    "s-m": Pair("yolo26s.yaml", "yolo26m.yaml", 640, 16),
}


class Bench:
    """Builds the candidates for one pair, with the same weights and batches."""

    def __init__(
        self,
        pair: Pair,
        environment: Environment,
        compiled: bool,
        teacher_dtype: torch.dtype = torch.float32,
        late: bool | None = None,
    ) -> None:
        """`teacher_dtype`: of this project's teacher; Ultralytics' computes as its student does. `late`: whether this
        project's results are read late; None: as in a job on this device.
        """
        self._pair, self._environment, self._compiled = pair, environment, compiled
        self._teacher_dtype, self._late = teacher_dtype, late
        self._trained: Any = None
        settings: dict[str, Any] = {
            "imgsz": pair.imgsz,
            "batch": pair.batch,
            "nbs": NOMINAL_BATCH,
            "warmup_epochs": 0.0,
        }
        self._student = build(pair.student, optimizer=OPTIMIZER, **settings)
        self._teacher = teach(build(pair.teacher, seed=1, **settings))
        images = pair.batch // environment.world_size
        seeds = [(step, environment.rank) for step in range(pair.steps)]
        batches = [shard_batch(images, seed=step * 10 + rank, imgsz=pair.imgsz) for step, rank in seeds]
        self._batches = pinned(batches, DEVICE)
        self._plan = TrainingPlan(
            epochs=100, steps_per_epoch=1000, batch=pair.batch, images=1000 * pair.batch, classes=3
        )

    def gigaflops(self) -> dict[str, float]:
        """GFLOPs of one step: the teacher's forward pass, and the student's forward and backward passes."""
        images = preprocessed(self._batches[0])["img"].to(DEVICE)
        with FlopCounterMode(display=False) as teacher:
            Teacher(self._teacher, DEVICE, torch.float32).infer(images)
        with FlopCounterMode(display=False) as student:
            predictions = deepcopy(self._student).to(DEVICE).train()(images)
            sum(branch["scores"].sum() + branch["boxes"].sum() for branch in predictions.values()).backward()
        return {"teacher": teacher.get_total_flops() / 1e9, "student": student.get_total_flops() / 1e9}

    def gradient_bytes(self) -> int:
        """Bytes of the gradients, in fp32, of a distilled step: of student and projector."""
        projector = Projector(neck_channels(self._student), neck_channels(self._teacher))
        trained = (p for model in (self._student, projector) for p in model.parameters() if p.requires_grad)
        return sum(parameter.numel() * 4 for parameter in trained)

    def digest(self) -> str:
        """SHA-256 of the parameters of the student that the newest candidate of this project trains."""
        digest = hashlib.sha256()
        for parameter in self._trained.parameters():
            digest.update(parameter.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def candidate(self, kind: str, format_: str) -> Run:
        """Steps of `kind` (plain, distilled, auto: with the terms of recipe: auto, ultralytics, ultralytics-plain), the
        student's forward pass in `format_`.
        """
        if kind in ULTRALYTICS_KINDS:
            return self._ultralytics(FORMATS[format_], distilled=kind == "ultralytics")
        terms = terms_of(Distillation.model_validate(AUTO["distillation"])) if kind == "auto" else ULTRALYTICS
        return self._own(Precision.of(format_, DEVICE), self._teacher if kind != "plain" else None, terms)

    def state(self) -> TrainingState:
        """The state of a distilled training before its first step, on DEVICE."""
        return self._builder(deepcopy(self._student), Precision(DEVICE.type, None), self._teacher).build_state()[0]

    def _builder(
        self, student: Any, precision: Precision, teacher: Any | None, terms: Sequence[Term] = ULTRALYTICS
    ) -> StepBuilder:
        ranks = self._environment.world_size
        weight = WeightSchedule(6.0, SCHEDULES["constant"], self._plan.total_steps if teacher is not None else 0)
        return StepBuilder(
            student,
            teacher,
            self._plan,
            DistillationPlan(weight, terms, teacher_dtype=self._teacher_dtype),
            Shards.of_rank(self._environment.rank, ranks, ranks),
            self._environment,
            precision,
            compile=self._compiled,
            late=self._late,
        )

    def _own(self, precision: Precision, teacher: Any | None, terms: Sequence[Term]) -> Run:
        student = deepcopy(self._student)
        builder = self._builder(student, precision, teacher, terms)
        self._trained = student
        train_mode(student, 0)
        step = builder.build_step(*builder.build_state())
        _split_forward(student)

        def on_step(phases: Phases) -> None:
            student.forward_clock = phases

        return as_our_loop(step, self._batches, on_step)

    def _ultralytics(self, dtype: torch.dtype | None, distilled: bool) -> Run:
        model: Any = deepcopy(self._student).to(DEVICE)
        if distilled:
            model = DistillationModel(teacher_model=deepcopy(self._teacher), student_model=model)
        if DEVICE.type == "cuda":
            model.to(memory_format=torch.channels_last)
        model.train()
        trainer: Any = SimpleNamespace(
            args=deepcopy(self._student.args),
            data={"nc": 3},
            model=model,
            device=DEVICE,
            stride=32,
            ema=ModelEMA(model),
            scaler=torch.amp.GradScaler(DEVICE.type, enabled=False),
        )
        trainer.optimizer = BaseTrainer.build_optimizer(
            trainer,
            model=model,
            name=OPTIMIZER,
            lr=0.01,
            momentum=0.937,
            decay=trainer.args.weight_decay,
            iterations=self._plan.total_steps,
        )
        numbers, progress_bar = count(), ProgressBar()

        def step(number: int, phases: Phases) -> None:
            batch = dict(self._batches[number % len(self._batches)])
            with torch.autocast(DEVICE.type, dtype=dtype, enabled=dtype is not None):
                with phases.measure("data"):
                    batch = DetectionTrainer.preprocess_batch(trainer, batch)
                with phases.measure("teacher, student, loss"):
                    loss, losses = model(batch)
                    loss = loss.sum()
            with phases.measure("backward"):
                trainer.scaler.scale(loss).backward()
            if (number + 1) % len(self._batches) == 0:
                with phases.measure("optimizer"):
                    BaseTrainer.optimizer_step(trainer)
            progress_bar.update(losses)

        def run(steps: int) -> Ran:
            ran, phases = Ran(), Phases.on(DEVICE, lambda _: None)
            for _ in range(steps):
                step(next(numbers), phases)
                ran.absorb(None, phases.reset())
            return ran

        return run


def _split_forward(student: Any) -> None:
    """Measure the student's forward pass separately from losses and projector."""
    inner = student.predict

    def timed(*args: Any, **kwargs: Any) -> Any:
        with student.forward_clock.measure("student forward"):
            return inner(*args, **kwargs)

    object.__setattr__(student, "predict", timed)
