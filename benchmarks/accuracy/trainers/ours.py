"""This project's trainer: a DistillJob file and the local runner, which resumes a run that was interrupted."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import yaml

from benchmarks.accuracy.trainers.request import Request
from benchmarks.accuracy.trainers.switches import ENV
from distill_api.constants import JobFile
from distill_api.job import read_job
from distill_local.machine import Machine
from distill_local.trainer_process import TrainerProcess

NAME = "run"


def job_file(request: Request) -> str:
    """The DistillJob of a request, as YAML."""
    spec: dict[str, Any] = {
        "student": {"model": request.student},
        "dataset": {"config": request.config.name},
        "training": request.training,
        "accelerators": {"perNode": 0},
        "device": "cpu",
        "checkpoint": {"intervalSeconds": 120},
        "volumes": {name: {"claimName": name} for name in ("checkpoints", "data", "models")},
    }
    if request.teacher is not None:
        spec["teacher"] = {"model": request.teacher}
    for name, value in request.spec.items():
        spec[name] = spec.get(name, {}) | value if isinstance(value, dict) else value
    document = {"apiVersion": "distilljob.dev/v1alpha1", "kind": "DistillJob", "metadata": {"name": NAME}, "spec": spec}
    return yaml.safe_dump(document, sort_keys=False)


def train(request: Request) -> tuple[Path, float]:
    """Train to the end. Returns the folder of the results, and the seconds of the training steps.

    Raises RuntimeError with the trainer's message if it ends otherwise.
    """
    folder = Path(request.folder)
    (folder / "job.yaml").write_text(job_file(request))
    claims = {"checkpoints": folder / "results", "data": Path(request.data), "models": Path(request.models)}
    job = read_job((folder / "job.yaml").read_text())
    module = "benchmarks.accuracy.trainers.switched" if request.switches else "distill_trainer"
    os.environ[ENV] = ",".join(request.switches)
    with TrainerProcess(job, Machine(folder / "results", claims, 1), piped=True, module=module) as trainer:
        print(trainer.announcement(), flush=True)
        trainer.start()
        for line in trainer.lines():
            print(line, flush=True)
        end = trainer.wait()
    if end.code != 0:
        raise RuntimeError(end.message.message if end.message else f"the trainer ended with exit code {end.code}")
    report = json.loads((trainer.results / JobFile.REPORT).with_suffix(".json").read_text())
    return trainer.results, float(report["training"]["seconds"])
