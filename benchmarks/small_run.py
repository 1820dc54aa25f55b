"""A short distillation of digits for recovery benchmarks: volumes, job, and attempts as processes.

Attempts start as with `distill run`: the same choice of attempt number and uid, and the same launcher and ranks.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import yaml

from benchmarks import ROOT
from distill_api.constants import Env
from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_local.machine import Machine, run_config
from distill_local.trainer_process import free_port
from distill_trainer.checkpoint.format.layout import committed_steps
from testcluster.linux.processes import ProcessId, children, end

IMGSZ = 64
JOB: dict[str, Any] = {
    "apiVersion": "distilljob.dev/v1alpha1",
    "kind": "DistillJob",
    "metadata": {"name": "digits"},
    "spec": {
        "student": {"model": "yolo26n.yaml"},
        "teacher": {"model": "teacher.pt", "precision": "fp32"},
        "dataset": {"config": "digits.yaml"},
        "accelerators": {"perNode": 0, "processesPerNode": 2},
        "checkpoint": {"intervalSeconds": 1},
        "volumes": {
            "checkpoints": {"claimName": "results"},
            "data": {"claimName": "data"},
            "models": {"claimName": "models"},
        },
    },
}


def make_volumes(root: Path, images: int) -> None:
    """Create a data volume with `images` training images, and a models volume with a randomly initialized teacher."""
    from digits.generate import generate
    from distill_trainer.models.arguments import ultralytics_arguments
    from distill_trainer.models.student import build_student, student_source
    from distill_trainer.models.weights import save_weights
    from tests.support.models import dataset, job_spec, teach

    generate(root / "data", "detect", {"train": images, "val": 8}, IMGSZ, seed=0)
    names = yaml.safe_load((root / "data" / "digits.yaml").read_text())["names"]
    classes = names if isinstance(names, dict) else dict(enumerate(names))
    arguments = ultralytics_arguments(job_spec(), "detect", IMGSZ)
    teacher = build_student(student_source(None, "yolo26s.yaml"), dataset(classes), arguments, seed=1)
    save_weights(root / "models" / "teacher.pt", teach(teacher), train_args=vars(arguments))


STARTED: list[Attempt] = []


def end_all() -> None:
    """End all running attempts, so that an interrupted benchmark leaves no processes behind."""
    for attempt in STARTED:
        end(attempt.processes() | attempt.seen)


@dataclass(frozen=True)
class Local:
    """A job with volumes on this machine."""

    root: Path
    """Folder with data/ and models/."""
    results: Path
    spec: dict[str, Any]
    """Fields that override those of JOB's spec."""

    def start(self, name: str, command: list[str] | None = None, **environ: str) -> Attempt:
        """Start the next attempt. `name`: of its log and message files. `command`: instead of the trainer's."""
        folder = self.results / "attempts"
        folder.mkdir(parents=True, exist_ok=True)
        claims = {"results": self.results, "data": self.root / "data", "models": self.root / "models"}
        document = JOB | {"spec": JOB["spec"] | self.spec}
        config = run_config(
            DistillJob.model_validate(document),
            Machine(self.results, claims, None),
            free_port(),
            folder / f"{name}.json",
        )
        log = folder / f"{name}.log"
        with log.open("w") as stream:
            process = subprocess.Popen(
                command or [sys.executable, "-m", "distill_trainer"],
                env=os.environ
                | {Env.RUN: config.model_dump_json(by_alias=True), Env.NODE_RANK: "0", "OMP_NUM_THREADS": "1"}
                | environ,
                cwd=ROOT,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
        attempt = Attempt(process, config, log, time.monotonic())
        STARTED.append(attempt)
        return attempt

    @property
    def folder(self) -> Path:
        """Folder of the job's results."""
        return self.results / "digits"

    def committed(self) -> list[int]:
        """Committed steps, oldest first."""
        return committed_steps(self.folder / "checkpoints")


@dataclass
class Attempt:
    """A running attempt."""

    process: subprocess.Popen[bytes]
    config: RunConfig
    log: Path
    began: float
    """time.monotonic() at its start."""
    seen: set[ProcessId] = field(default_factory=set)
    """All of its processes that were found so far."""
    _port: int | None = None

    def log_text(self) -> str:
        """Its log so far; the last character may be incomplete."""
        return self.log.read_text(errors="replace")

    def status(self) -> dict[str, Any]:
        """Rank 0's status; empty while rank 0 does not serve it."""
        if self._port is None:
            found = re.search(r"rank 0 .*serving metrics and status on port (\d+)", self.log_text())
            self._port = int(found[1]) if found else None
        if self._port is None:
            return {}
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self._port}/status", timeout=1) as answer:
                return dict(json.load(answer))
        except (OSError, HTTPException, ValueError):  # rank 0 may end while it responds
            return {}

    def message(self) -> TerminationMessage | None:
        """The launcher's termination message; None if the launcher was killed."""
        file = Path(self.config.directories.termination or "")
        if not file.is_file():
            return None
        try:
            return TerminationMessage.model_validate_json(file.read_bytes())
        except ValueError:
            if (self.process.poll() or 0) >= 0:
                raise
            return None

    def launcher(self) -> list[ProcessId]:
        """The launcher's process; empty if it has ended."""
        process = ProcessId.of(self.process.pid) if self.process.poll() is None else None
        return self._noted([process] if process else [])

    def ranks(self) -> list[ProcessId]:
        """The ranks' processes, by rank."""
        named = {child.name: child for launcher in self.launcher() for child in children(launcher.pid)}
        return self._noted([named[name] for name in sorted(named) if name.startswith("rank ")])

    def writers(self) -> list[ProcessId]:
        """The checkpoint writer process; empty before it has started."""
        below = (child for rank in self.ranks() for child in children(rank.pid))
        return self._noted([child for child in below if any("checkpoint.writer" in word for word in child.command)])

    def processes(self) -> set[ProcessId]:
        """All processes of the attempt."""
        return {*self.writers(), *self.launcher(), *self.ranks()}

    def _noted(self, found: list[ProcessId]) -> list[ProcessId]:
        self.seen.update(found)
        return found
