"""Whole runs of one rank in the test's own process: the real `train`, models, data, checkpoints and files; no launcher.

Starting Python and torch takes longer than training a small model for six steps, and many models are to be tried.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from prometheus_client import CollectorRegistry
from ultralytics.utils.torch_utils import unset_deterministic

from digits import generate
from distill_api.errors import Stopped
from distill_api.pod.run import RunConfig
from distill_api.spec.recipe import applied, chosen
from distill_api.spec.rules.corrections import definition
from distill_api.status import Result
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.models.student import build_student, student_source
from distill_trainer.models.weights import save_weights
from distill_trainer.outputs.report import measure
from distill_trainer.outputs.results import read_rows
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.liveness.watchdog import Watchdog
from distill_trainer.process.rank.context import RankContext
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.process.run_files import RunFiles
from distill_trainer.process.telemetry.console import Console
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from distill_trainer.process.telemetry.status import RankStatus
from distill_trainer.train import train
from tests.support.checkpoints.opener import Events
from tests.support.models import dataset, job_spec, teach

STEPS_PER_EPOCH, EPOCHS = 3, 2
STEPS = STEPS_PER_EPOCH * EPOCHS
PASSES = {"_WARM_UP": 0, "_MIN_PASSES": 1, "_MAX_PASSES": 1}
"""For the report's measurement of latency: one pass is enough to see that it was made."""
IMGSZ = 64


class StopAfter(StopFlag):
    """A stop that is asked for when so many steps are done."""

    def __init__(self, steps: int | None, done: Callable[[], int | None]) -> None:
        super().__init__()
        self._steps, self._done = steps, done

    @property
    def requested(self) -> bool:
        return self._steps is not None and (self._done() or 0) >= self._steps


@dataclass
class Volumes:
    """A data volume of digit scenes for one task, a models volume, and a checkpoints volume."""

    root: Path
    task: str = "detect"
    last_progress: dict[str, Any] = field(default_factory=dict)
    """Of the last run, as /status had it at its end."""
    last_metrics: CollectorRegistry = field(default_factory=CollectorRegistry)
    """Of the last run, as /metrics had them at its end."""

    def __post_init__(self) -> None:
        generate.generate(self.root / "data", self.task, {"train": 12, "val": 4}, imgsz=IMGSZ, seed=0)
        (self.root / "models").mkdir()

    @property
    def classes(self) -> dict[int, str]:
        return dict(yaml.safe_load((self.root / "data/digits.yaml").read_text())["names"])

    @property
    def keypoints(self) -> Any:
        return yaml.safe_load((self.root / "data/digits.yaml").read_text()).get("kpt_shape")

    def save_model(self, architecture: str, name: str | None = None) -> str:
        """Put a model of random weights for the data set's classes on the models volume; its name there."""
        name = name or architecture.replace(".yaml", ".pt")
        if not (self.root / "models" / name).exists():
            arguments = ultralytics_arguments(job_spec(), self.task, IMGSZ)
            source = student_source(self.root / "models", architecture)
            known = SimpleNamespace(**(vars(dataset(self.classes)) | {"kpt_shape": self.keypoints}))
            model = teach(build_student(source, known, arguments, seed=1))
            save_weights(self.root / "models" / name, model, train_args=vars(arguments))
        return name

    def run(
        self,
        job: str,
        student: str | dict[str, Any],
        teacher: str | None,
        stop_after: int | None = None,
        precision: str = "fp32",
        **spec: Any,
    ) -> Any:
        """The next attempt of `job`, to its end. Its Result, or the step at which it was stopped and committed.

        `student`: its model, or all of spec.student. `precision`: of the teacher.
        """
        claim = {"claimName": "claim"}
        training = {"epochs": EPOCHS, "batch": 4, "nbs": 4, "imgsz": IMGSZ, "optimizer": "SGD", "workers": 0}
        config = RunConfig.model_validate(
            {
                "job": job,
                "uid": f"uid-of-{job}",
                "attempt": len(list(self.root.glob(f"{job}-attempt-*"))) + 1,
                "nodes": 1,
                "rendezvous": "127.0.0.1:0",
                "directories": {name: str(self.root / name) for name in ("checkpoints", "data", "models", "cache")},
                "spec": {
                    "student": student if isinstance(student, dict) else {"model": student},
                    "teacher": {"model": teacher, "precision": precision} if teacher else None,
                    "dataset": {"config": "digits.yaml"},
                    "accelerators": {"perNode": 0},
                    "volumes": {"checkpoints": claim, "data": claim, "models": claim},
                    "checkpoint": {"intervalSeconds": 1000},
                }
                | spec
                | {"training": training | {"warmup_epochs": 1.0, "plots": False} | spec.pop("training", {})},
            }
        )
        (self.root / f"{job}-attempt-{config.attempt}").touch()
        recipe = chosen(config.spec)
        chose = {"spec": applied(config.spec, recipe), "recipe": recipe}
        return self._run(config.model_copy(update=chose), stop_after)

    def _run(self, config: RunConfig, stop_after: int | None) -> Result | int | None:
        metrics = TrainerMetrics(rank=0, world_size=1, checkpoint_interval=1, versions={})
        status = RankStatus(
            job=config.job, uid=config.uid, attempt=config.attempt, rank=0, world_size=1, images_per_second=lambda: None
        )
        stop = StopAfter(stop_after, lambda: status.read().progress.step)
        files = RunFiles.of(config)
        checkpointer = Checkpointer(
            files.checkpoints, uid=config.uid, attempt=config.attempt, keep=2, is_writer=True, events=Events(),
            definition=definition(config.spec),
        )  # fmt: skip
        context = RankContext(
            env=TorchrunEnv.from_environ({}),
            stop=stop,
            status=status,
            metrics=metrics,
            watchdog=Watchdog(
                timeout=600, stopping_timeout=600, stop_requested=lambda: stop.requested, on_stall=lambda _: None
            ),
            checkpointer=checkpointer,
            files=files,
            console=Console(enabled=False),
        )
        threads = torch.get_num_threads()
        try:
            with pytest.MonkeyPatch.context() as patch:
                for name, passes in PASSES.items():
                    patch.setattr(measure, name, passes)
                return train(config, context)
        except Stopped as stopped:
            return stopped.committed_step
        finally:
            self.last_progress = status.read().progress.model_dump()
            self.last_metrics = metrics.registry
            checkpointer.close()
            torch.set_num_threads(threads)
            unset_deterministic()

    def final_state(self, job: str, step: int = STEPS) -> bytes:
        """What the job's last checkpoint holds."""
        return (self.root / "checkpoints" / job / "checkpoints" / f"step-{step}" / "tensors.bin").read_bytes()

    def results(self, job: str) -> list[dict[str, str]]:
        rows = read_rows(self.root / "checkpoints" / job / "results.csv")
        return [{key: value for key, value in row.items() if key != "time"} for row in rows]
