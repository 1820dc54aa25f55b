"""Starts, stops and waits for the trainer as a process on this machine."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from distill_api.constants import Env, ExitCode, JobFile
from distill_api.job import DistillJob
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_local.machine import Machine, UserError, run_config


@dataclass(frozen=True)
class TrainerEnd:
    """How an attempt ended."""

    code: int
    """The launcher's exit code; 128 + n if signal n killed it."""
    message: TerminationMessage | None
    """The termination message; None if the launcher wrote none."""

    @property
    def stopped(self) -> bool:
        """Whether it was stopped on request, with a checkpoint committed."""
        return self.code == ExitCode.STOPPED

    def scores(self) -> str:
        """mAP of student and teacher in one line; empty if none was measured."""
        result = self.message.result if self.message else None
        found = (("student", result.student_map), ("teacher", result.teacher_map)) if result else ()
        return "  ".join(f"{name} mAP50-95 {value:.4f}" for name, value in found if value is not None)


class TrainerProcess:
    """One attempt of a job. As a context manager, it stops a running trainer on exit and waits for it.

    With `piped`, read the output with `lines()`; the trainer does not receive the terminal's Ctrl-C. Otherwise it
    writes to this process's output and shares its terminal. `module` is what Python runs: the trainer, or a benchmark's
    variant of it.
    """

    def __init__(
        self, job: DistillJob, machine: Machine, *, piped: bool = False, module: str = "distill_trainer"
    ) -> None:
        """Raises UserError."""
        if find_spec("distill_trainer") is None or find_spec("torch") is None:
            raise UserError("the trainer is not installed; install distill-operator[trainer]")
        self._folder = tempfile.TemporaryDirectory(prefix="distill-run-")
        try:
            self._termination = Path(self._folder.name) / "termination.json"
            self.run = run_config(job, machine, free_port(), self._termination)
        except BaseException:
            self._folder.cleanup()
            raise
        self._piped, self._module = piped, module
        self._process: subprocess.Popen[str] | None = None

    @property
    def results(self) -> Path:
        """Folder of the job's results."""
        return Path(self.run.directories.checkpoints) / self.run.job

    @property
    def best(self) -> Path:
        """The student's best weights."""
        return self.results / JobFile.BEST

    def announcement(self) -> str:
        """One line about the attempt, to print before it starts."""
        verb = "resuming" if self.run.attempt > 1 else "starting"
        ranks = f"{self.run.world_size} rank{'s' if self.run.world_size > 1 else ''}"
        return f"{verb} {self.run.job}, attempt {self.run.attempt}, {ranks}; results in {self.results}"

    def start(self) -> None:
        """Start the trainer."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", self._module],
            env=_environment(self.run),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if self._piped else None,
            stderr=subprocess.STDOUT if self._piped else None,
            start_new_session=self._piped,
            text=True,
            encoding="utf-8",
            errors="replace",
        )

    def lines(self) -> Iterator[str]:
        """The trainer's output, line by line, until it ends; empty unless it is piped."""
        output = self._started.stdout
        return iter(()) if output is None else (line.rstrip("\n") for line in output)

    def stop(self) -> None:
        """Request a stop: the trainer commits a checkpoint and ends. Repeated requests are ignored."""
        self._started.send_signal(signal.SIGTERM)

    def wait(self) -> TrainerEnd:
        """Wait for the trainer to end."""
        code = self._started.wait()
        text = self._termination.read_text(encoding="utf-8") if self._termination.exists() else None
        return TrainerEnd(
            128 - code if code < 0 else code, TerminationMessage.model_validate_json(text) if text else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()
            for _ in self.lines():
                continue
            self._process.wait()
        self._folder.cleanup()

    @property
    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            raise RuntimeError("the trainer was not started")
        return self._process


def _environment(run: RunConfig) -> dict[str, str]:
    return {
        **os.environ,
        Env.RUN: run.to_json(),
        Env.NODE_RANK: "0",
        Env.PARENT: str(os.getpid()),
    }


def free_port() -> int:
    """A free TCP port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
