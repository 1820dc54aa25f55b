"""distill(): runs a job on this machine from Python, with the same trainer and checkpoints as on a cluster."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from distill_api.constants import ExitCode, JobFile
from distill_api.errors import Permanent, Retryable
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_local.call import DATA, MODELS, RESULTS, Call, PathLike, invalid, job_of, load_job
from distill_local.machine import Machine, UserError
from distill_local.trainer_process import TrainerEnd, TrainerProcess

_ROOT = Path("/")
"""Data and models volume of a call without a job, which can use any file of this machine."""


@dataclass(frozen=True)
class DistillResult:
    """A finished run: its files and scores."""

    folder: Path
    """Folder of the run's files."""
    student_map: float | None
    """mAP50-95 of the best weights on the validation images."""
    teacher_map: float | None
    """mAP50-95 of the teacher on the same images; None without a teacher."""
    sha256: str | None
    """Digest of the best weights."""

    @property
    def best(self) -> Path:
        """The student's best weights; `YOLO(run.best)` loads them."""
        return self.folder / JobFile.BEST

    @property
    def last(self) -> Path:
        """The student's weights after the last epoch."""
        return self.folder / JobFile.LAST

    @property
    def results_csv(self) -> Path:
        """One row per epoch, with Ultralytics' columns."""
        return self.folder / JobFile.RESULTS

    def results(self) -> list[dict[str, float]]:
        """The rows of results.csv, one per epoch."""
        with self.results_csv.open(newline="", encoding="utf-8") as file:
            return [{name: float(value) for name, value in row.items() if value} for row in csv.DictReader(file)]


def distill(
    job: PathLike | Mapping[str, Any] | None = None,
    /,
    *,
    student: PathLike | None = None,
    teacher: PathLike | None = None,
    data: PathLike | None = None,
    project: PathLike = "runs",
    name: str | None = None,
    device: str | None = None,
    nproc: int | None = None,
    shards: int | None = None,
    dis: float | None = None,
    distillation: Mapping[str, Any] | None = None,
    trust_pickle: bool = False,
    teacher_precision: str | None = None,
    init: str | None = None,
    recipe: str | None = None,
    volumes: Mapping[str, PathLike] | None = None,
    verbose: bool = True,
    **training: Any,
) -> DistillResult:
    """Train `student` with the frozen `teacher` on this machine, in separate processes, and wait until it is done.

        run = distill(student="yolo26n.yaml", teacher="teacher.pt", data="digits.yaml", epochs=50, imgsz=320, nproc=2)
        YOLO(run.best)

    Run the same call again to resume. An interrupt commits a checkpoint, then raises KeyboardInterrupt.

    Args:
        job: a DistillJob as a YAML file or a dictionary. It defines the whole run, so only project, device, nproc,
            volumes and verbose can be given with it.
        student: a .pt file, or an architecture such as yolo26n.yaml.
        teacher: a trained .pt file; without one the student is trained without distillation.
        data: the data set's YAML file.
        project: directory for results; with a job, as in `distill run --runs <project>`.
        name: results go to <project>/<name>; default: the student's name.
        device: "cuda", "cpu" or "auto"; default: the job's device, or CUDA if there are devices.
        nproc: number of processes; default: the job's, or one per CUDA device, or one on CPUs.
        shards: parts of the global batch; default: nproc. A run can be resumed with any nproc that divides its shards.
        dis: weight of the distillation loss; default: 6.0.
        distillation: other fields of the job's spec.distillation, such as {"loss": "cwd"}.
        trust_pickle: load .pt files with custom classes, which can run any code.
        teacher_precision: the job's teacher.precision, such as "fp32".
        init: the job's student.init; "inherit" makes a small copy of the teacher the student's first weights.
        recipe: the job's recipe; "auto" chooses init and distillation as measured best.
        volumes: directories to use for claims of the job.
        verbose: print the trainer's output.
        training: Ultralytics' training arguments: epochs, batch, imgsz, lr0 …

    Raises Permanent for errors that you must fix first, and Retryable for failures that may not occur again.
    """
    call = Call(
        student, teacher, data, name, shards, dis, distillation, trust_pickle, teacher_precision, init, recipe, training
    )
    if job is not None:
        return _run_job(load_job(job, device), call, Machine(Path(project), _claims(volumes), nproc, _OPTION), verbose)
    if volumes:
        raise invalid("volumes can only be given with a job; without one, student, teacher and data are files")
    call_job = job_of(call, cuda_devices=_cuda_devices(device), processes=nproc, arguments=_arguments())
    machine = Machine(Path(project), {RESULTS: Path(project), DATA: _ROOT, MODELS: _ROOT}, nproc)
    return _run(call_job, machine, verbose)


def _arguments() -> list[str]:
    """Names of distill()'s keyword arguments, without Ultralytics' own."""
    return list(inspect.signature(distill).parameters)[1:-1]


_OPTION: Final = "volumes={{'{}': DIR}}"


def _claims(volumes: Mapping[str, PathLike] | None) -> dict[str, Path]:
    return {claim: Path(path) for claim, path in (volumes or {}).items()}


def _run_job(job: DistillJob, call: Call, machine: Machine, verbose: bool) -> DistillResult:
    if given := call.given():
        raise invalid(f"{', '.join(given)} cannot be given together with a job; set them in the job")
    if job.spec.check_only:
        raise invalid("a job with checkOnly trains nothing that could be returned; check it with distill run")
    return _run(job, machine, verbose)


def _run(job: DistillJob, machine: Machine, verbose: bool) -> DistillResult:
    try:
        trainer = TrainerProcess(job, machine, piped=True)
    except UserError as error:
        raise invalid(str(error)) from None
    with trainer:
        if verbose:
            print(trainer.announcement())
        end = _run_to_end(trainer, verbose)
    text = end.message.message if end.message else ""
    if end.stopped:
        raise KeyboardInterrupt(f"{text}; run the same call again to resume")
    if end.code == ExitCode.DONE and end.message is not None and end.message.result is not None:
        result = end.message.result
        return DistillResult(trainer.results, result.student_map, result.teacher_map, result.sha256)
    reason = end.message.reason if end.message else Reason.PROCESS_KILLED
    if end.code == ExitCode.PERMANENT:
        raise Permanent(reason, text)
    text = text or f"the trainer ended with exit code {end.code} and without a message"
    raise Retryable(reason, f"{text}; run the same call again to resume from the last checkpoint")


def _run_to_end(trainer: TrainerProcess, verbose: bool) -> TrainerEnd:
    """Run the trainer to its end. An interrupt requests a stop."""
    trainer.start()
    try:
        return _print_output(trainer, verbose)
    except KeyboardInterrupt:
        if verbose:
            print("stopping after committing a checkpoint")
        trainer.stop()
        return _print_output(trainer, verbose)


def _print_output(trainer: TrainerProcess, verbose: bool) -> TrainerEnd:
    for line in trainer.lines():
        if verbose:
            print(line, flush=True)
    return trainer.wait()


def _cuda_devices(device: str | None) -> int:
    """Number of CUDA devices to use; 0: CPUs. Raises Permanent if `device` is "cuda" and there are none."""
    if device not in (None, "auto", "cuda", "cpu"):
        raise invalid(f"device is {device!r}; it must be auto, cuda or cpu (use nproc for the number of processes)")
    if device == "cpu":
        return 0
    import torch

    found = torch.cuda.device_count()
    if device == "cuda" and not found:
        raise Permanent(Reason.NO_ACCELERATOR, "device is cuda, but this machine has no CUDA device; use device='cpu'")
    return found
