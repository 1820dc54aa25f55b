"""Whole training runs from a RunConfig to weights: the real launcher, ranks, data, signals and files."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics import YOLO

from digits import generate
from distill_api.constants import ExitCode
from distill_api.pod.report import TerminationMessage
from distill_api.reasons import Reason
from distill_local.trainer_process import free_port
from distill_trainer.checkpoint.reading import load_newest
from distill_trainer.checkpoint.store.fence import read_fence
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.models.student import build_student, student_source
from distill_trainer.models.weights import save_weights
from tests.support.models import dataset, job_spec, teach

STEPS_PER_EPOCH, EPOCHS = 3, 2


@dataclass
class Volumes:
    root: Path
    teacher_sha256: str

    def __post_init__(self) -> None:
        self.checkpoints = self.root / "checkpoints"

    def run(self, job: str, world_size: int, attempt: int = 1, stop_after: int | None = None, **spec: Any) -> Any:
        """Run an attempt to its end, with SIGTERM once the attempt is at work (`stop_after` 0) or that step is
        committed; its exit code and message.
        """
        message = self.root / f"{job}-{attempt}.json"
        claim = {"claimName": "claim"}
        port = free_port()
        config = {
            "job": job,
            "uid": f"uid-of-{job}",
            "attempt": attempt,
            "nodes": 1,
            "rendezvous": f"127.0.0.1:{port}",
            "directories": {
                "checkpoints": str(self.checkpoints),
                "data": str(self.root / "data"),
                "models": str(self.root / "models"),
                "termination": str(message),
            },
            "spec": {
                "student": {"model": "yolo26n.yaml"},
                "teacher": {"model": "teacher.pt", "sha256": self.teacher_sha256, "precision": "fp32"},
                "dataset": {"config": "digits.yaml"},
                "accelerators": {"perNode": 0, "processesPerNode": world_size},
                "volumes": {"checkpoints": claim, "data": claim, "models": claim},
                "checkpoint": {"intervalSeconds": 1},
                "training": {
                    "epochs": EPOCHS,
                    "batch": 8,
                    "nbs": 8,
                    "imgsz": 64,
                    "optimizer": "SGD",
                    "warmup_epochs": 1.0,
                    "workers": 0,
                    "plots": False,
                },
            }
            | spec,
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "distill_trainer"],
            env=os.environ | {"DISTILL_RUN": json.dumps(config), "JOB_COMPLETION_INDEX": "0", "OMP_NUM_THREADS": "1"},
        )
        if stop_after is not None:
            folder = self.checkpoints / job / "checkpoints"
            while process.poll() is None and not (
                (folder / f"step-{stop_after}").exists() if stop_after else raised(folder, attempt)
            ):
                time.sleep(0.02)
            process.send_signal(signal.SIGTERM)
        code = process.wait(300)
        return code, TerminationMessage.model_validate_json(message.read_text())

    def final_state(self, job: str) -> bytes:
        newest = self.checkpoints / job / "checkpoints" / f"step-{STEPS_PER_EPOCH * EPOCHS}"
        return (newest / "tensors.bin").read_bytes()

    def results(self, job: str) -> list[dict[str, str]]:
        with (self.checkpoints / job / "results.csv").open() as file:
            return [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]


def raised(folder: Path, attempt: int) -> bool:
    """Whether the attempt has raised its fence, the last thing before the training's own code."""
    fence = read_fence(folder)
    return fence is not None and fence.attempt == attempt


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    """A data volume of digit scenes and a models volume with a teacher of random weights for their classes."""
    root = tmp_path_factory.mktemp("volumes")
    generate.generate(root / "data", "detect", {"train": 24, "val": 8}, imgsz=64, seed=0)
    names = yaml.safe_load((root / "data/digits.yaml").read_text())["names"]
    classes = names if isinstance(names, dict) else dict(enumerate(names))
    arguments = ultralytics_arguments(job_spec(), "detect", 64)
    teacher = build_student(student_source(None, "yolo26s.yaml"), dataset(classes), arguments, seed=1)
    sha256 = save_weights(root / "models/teacher.pt", teach(teacher), train_args=vars(arguments))
    return Volumes(root, sha256)


@pytest.mark.parametrize("world_size", [1, 2])
def test_a_run_stopped_by_sigterm_and_resumed_is_bitwise_equal(volumes: Volumes, world_size: int) -> None:
    calm, disturbed = f"calm-{world_size}", f"disturbed-{world_size}"
    code, message = volumes.run(calm, world_size)
    assert (code, message.outcome, message.committed_step) == (ExitCode.DONE, "done", STEPS_PER_EPOCH * EPOCHS)

    code, message = volumes.run(disturbed, world_size, stop_after=STEPS_PER_EPOCH)
    assert (code, message.outcome, message.reason) == (ExitCode.STOPPED, "stopped", Reason.STOPPED)
    assert message.committed_step is not None
    assert message.execution == 1
    assert STEPS_PER_EPOCH <= message.committed_step < STEPS_PER_EPOCH * EPOCHS
    stopped_at = message.committed_step

    code, message = volumes.run(disturbed, world_size, attempt=2)
    assert (code, message.resumed_from_step, message.execution) == (ExitCode.DONE, stopped_at, 2)
    assert volumes.final_state(disturbed) == volumes.final_state(calm)
    assert volumes.results(disturbed) == volumes.results(calm)

    saved = load_newest(volumes.checkpoints / calm / "checkpoints", f"uid-of-{calm}", pytest.fail)
    assert saved is not None
    weight = saved.state["student"]["model.1.conv.weight"]
    assert weight.is_contiguous(memory_format=torch.channels_last)

    rows = volumes.results(calm)
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert all(float(row["train/dis_loss"]) > 0 for row in rows)
    best = volumes.checkpoints / calm / "weights/best.pt"
    student = YOLO(best)
    assert type(student.model).__name__ == "DetectionModel"
    assert not any("projector" in name or "teacher" in name for name in student.model.state_dict())
    assert message.result is not None
    assert message.result.teacher_map is not None


def assert_resumes_as(calm: str, volumes: Volumes, disturbed: str, **spec: Any) -> None:
    """A run of one rank that is stopped after its first epoch and resumed ends as `calm` has, bit for bit."""
    volumes.run(disturbed, 1, stop_after=STEPS_PER_EPOCH, **spec)
    code, message = volumes.run(disturbed, 1, attempt=2, **spec)
    assert code == ExitCode.DONE
    assert message.resumed_from_step is not None
    assert message.resumed_from_step >= STEPS_PER_EPOCH
    assert volumes.final_state(disturbed) == volumes.final_state(calm)
    assert volumes.results(disturbed) == volumes.results(calm)


def test_a_run_resumed_after_the_end_of_distillation_is_bitwise_equal(volumes: Volumes) -> None:
    """Distillation ends in the middle of the first epoch; the commit after it holds no projector."""
    ends = {"loss": "cwd", "schedule": "stop", "until": {"fraction": 1 / 3}}
    volumes.run("calm-end", 1, distillation=ends)
    assert_resumes_as("calm-end", volumes, "disturbed-end", distillation=ends)
    distilled = [float(row["train/dis_loss"]) for row in volumes.results("calm-end")]
    assert distilled[0] > 0
    assert distilled[1] == 0


def test_a_stop_before_the_first_step_reports_the_existing_checkpoint(volumes: Volumes) -> None:
    job = "impatient"
    _, first = volumes.run(job, 1, stop_after=STEPS_PER_EPOCH)
    (volumes.checkpoints / job / "teacher.json").unlink()  # so that the next attempt measures the teacher again
    code, message = volumes.run(job, 1, attempt=2, stop_after=0)

    assert (code, message.outcome) == (ExitCode.STOPPED, "stopped")
    assert message.step == message.committed_step == message.resumed_from_step == first.committed_step
    assert message.progress is not None
    assert message.progress.committed_step == first.committed_step
    assert message.progress.committed_at is not None
    assert f"committed step {first.committed_step}" in message.message
    assert not (volumes.checkpoints / job / "teacher.json").exists()


BAD = {
    "missing teacher": ({"teacher": {"model": "none.pt"}}, Reason.MODEL_NOT_FOUND, "teacher.pt"),
    "wrong digest": ({"teacher": {"model": "teacher.pt", "sha256": "0" * 64}}, Reason.DIGEST_MISMATCH, "000"),
    "another family": ({"student": {"model": "yolov8n.yaml"}}, Reason.PAIR_MISMATCH, "families"),
    "missing data set": ({"dataset": {"config": "none.yaml"}}, Reason.DATASET_INVALID, "none.yaml"),
}


@pytest.mark.parametrize("mistake", BAD)
def test_a_mistake_ends_the_run_for_good_with_one_line(volumes: Volumes, mistake: str) -> None:
    changes, reason, says = BAD[mistake]
    code, message = volumes.run(mistake.replace(" ", "-"), 1, **changes)
    assert (code, message.outcome, message.reason) == (ExitCode.PERMANENT, "permanent", reason)
    assert says in message.message
    assert "\n" not in message.message


def test_a_job_without_a_teacher_is_plain_training(volumes: Volumes) -> None:
    code, message = volumes.run("plain", 1, teacher=None)
    assert (code, message.outcome) == (ExitCode.DONE, "done")
    assert "train/dis_loss" not in volumes.results("plain")[0]
    state = torch.load(volumes.checkpoints / "plain/weights/best.pt", weights_only=False)
    assert state["model"].names[0] == YOLO(volumes.root / "models/teacher.pt").names[0]
