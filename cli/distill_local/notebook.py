"""distill(): a run on this machine by a Python call, with the trainer, checkpoints and resume of a cluster."""

from __future__ import annotations

import csv
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.constants import ExitCode, JobFile
from distill_api.errors import Permanent, Retryable
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_local.call import DATA, MODELS, RESULTS, Call, PathLike, job_of, read, wrong
from distill_local.machine import Machine, UserError
from distill_local.trainer_process import TrainerEnd, TrainerProcess

_DISK = Path("/")
"""A call names files by their place on this machine, so all of it is its data and models volume."""


@dataclass(frozen=True)
class DistillResult:
    """A finished run: where its files are, and how good the student is."""

    folder: Path
    """Everything that the run has made."""
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
    volumes: Mapping[str, PathLike] | None = None,
    verbose: bool = True,
    **training: Any,
) -> DistillResult:
    """Train `student` under the frozen `teacher` on this machine, in processes of its own, to the end.

        run = distill(student="yolo26n.yaml", teacher="teacher.pt", data="digits.yaml", epochs=50, imgsz=320, nproc=2)
        YOLO(run.best)

    The same call again resumes from the last commit. An interrupt commits first, then raises KeyboardInterrupt.

    Args:
        job: a DistillJob that says all that defines the run, as a YAML file or a dictionary; everything but project,
            device, nproc, volumes and verbose is then left out.
        student: a .pt file, or an architecture such as yolo26n.yaml.
        teacher: a trained .pt file; without one the student is trained plainly.
        data: the data set's YAML file.
        project: directory of results; a job's are where `distill run --runs <project>` has them.
        name: results go to <project>/<name>; the student's name by default.
        device: "cuda", "cpu" or "auto"; by default CUDA when there are devices, or what the job says.
        nproc: processes; by default one for each CUDA device, or one on CPUs, or as many as the job has.
        shards: parts of the global batch, by default nproc. A run may go on with any nproc that divides its shards.
        dis: weight of the distillation loss, 6.0 by default.
        distillation: other fields of spec.distillation of a job, such as {"loss": "cwd"}.
        trust_pickle: load .pt files that hold classes of their own; these can run any code.
        teacher_precision: teacher.precision of a job, such as "fp32".
        volumes: directories that stand for claims of the job.
        verbose: print what the trainer tells.
        training: Ultralytics' training arguments by their own names: epochs, batch, imgsz, lr0 …

    Raises Permanent for what has to be changed first, Retryable for a failure that another call may not meet.
    """
    call = Call(student, teacher, data, name, shards, dis, distillation, trust_pickle, teacher_precision, training)
    if job is not None:
        if said := call.says():
            raise wrong(f"the job says all that defines the run; leave {', '.join(said)} out")
        claims = {claim: Path(path) for claim, path in (volumes or {}).items()}
        return _run(read(job, device), Machine(Path(project), claims, nproc), verbose)
    if volumes:
        raise wrong("volumes stand for the claims of a job; without one, student, teacher and data are files")
    arguments = list(inspect.signature(distill).parameters)[1:-1]
    made = job_of(call, cuda_devices=_cuda_devices(device), processes=nproc, arguments=arguments)
    claims = {RESULTS: Path(project), DATA: _DISK, MODELS: _DISK}
    return _run(made, Machine(Path(project), claims, nproc), verbose)


def _run(job: DistillJob, machine: Machine, verbose: bool) -> DistillResult:
    try:
        trainer = TrainerProcess(job, machine, piped=True)
    except UserError as mistake:
        raise wrong(str(mistake)) from None
    with trainer:
        if verbose:
            print(trainer.announcement())
        ended = _follow(trainer, verbose)
    said = ended.message.message if ended.message else ""
    if ended.stopped:
        raise KeyboardInterrupt(f"{said}; the same call again goes on from there")
    if ended.code == ExitCode.DONE and ended.message is not None and ended.message.result is not None:
        result = ended.message.result
        return DistillResult(trainer.results, result.student_map, result.teacher_map, result.sha256)
    reason = ended.message.reason if ended.message else Reason.PROCESS_KILLED
    if ended.code == ExitCode.PERMANENT:
        raise Permanent(reason, said)
    said = said or f"the trainer ended with exit code {ended.code} and left no message"
    raise Retryable(reason, f"{said}; the same call again goes on from the last checkpoint")


def _follow(trainer: TrainerProcess, verbose: bool) -> TrainerEnd:
    """Run it to its end, which the first interrupt asks it for."""
    trainer.start()
    try:
        return _listen(trainer, verbose)
    except KeyboardInterrupt:
        if verbose:
            print("stopping: a checkpoint is committed first")
        trainer.stop()
        return _listen(trainer, verbose)


def _listen(trainer: TrainerProcess, verbose: bool) -> TrainerEnd:
    for line in trainer.lines():
        if verbose:
            print(line, flush=True)
    return trainer.wait()


def _cuda_devices(device: str | None) -> int:
    """CUDA devices to use; 0 means CPUs. Raises Permanent when they are asked for and there are none."""
    if device not in (None, "auto", "cuda", "cpu"):
        raise wrong(f"device is {device!r}; it is auto, cuda or cpu, and nproc says how many")
    if device == "cpu":
        return 0
    import torch

    found = torch.cuda.device_count()
    if device == "cuda" and not found:
        raise Permanent(Reason.NO_ACCELERATOR, "device is cuda but there is no CUDA device here; use device='cpu'")
    return found
