"""`distill run`: the same trainer, checkpoints and resume as on a cluster, on this machine."""

import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from distill_api.constants import ExitCode, JobFile
from distill_api.job import DistillJob
from distill_api.reading.mistakes import explain
from distill_api.spec.fields import DistillJobSpec
from distill_cli.jobfile import fail, load
from distill_local.machine import Machine, UserError
from distill_local.trainer_process import TrainerEnd, TrainerProcess


def run(
    file: Annotated[Path, typer.Argument(help="YAML file with one DistillJob.")],
    nproc: Annotated[
        int | None,
        typer.Option(min=1, help="Ranks on this machine; default: nodes times processes per node of the job."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Directory of what local runs make.")] = Path("runs"),
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="CLAIM=DIR", help="Directory for a claim of the job; default: <runs>/volumes/<claim>."),
    ] = None,
    device: Annotated[
        Literal["auto", "cuda", "cpu"] | None, typer.Option(help="Use this instead of the job's device.")
    ] = None,
) -> None:
    """Run a DistillJob here. Ctrl-C commits a checkpoint; the same command again goes on from there."""
    job = _on_device(load(file), device)
    try:
        trainer = TrainerProcess(job, Machine(runs, _claims(volume or []), nproc))
    except UserError as mistake:
        fail(str(mistake))

    def pass_on(_signum: int, _frame: FrameType | None) -> None:
        # A terminal tells the trainer as well; it counts only the first.
        trainer.stop()

    with trainer:
        typer.echo(trainer.announcement())
        trainer.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, pass_on)
        ended = trainer.wait()
    _tell(ended, trainer)
    raise typer.Exit(ended.code)


def _on_device(job: DistillJob, device: str | None) -> DistillJob:
    if device is None:
        return job
    try:
        spec = DistillJobSpec.model_validate(job.spec.to_wire() | {"device": device})
    except ValidationError as error:
        fail(*explain(error, DistillJobSpec))
    return job.model_copy(update={"spec": spec})


def _claims(options: list[str]) -> dict[str, Path]:
    claims = {}
    for option in options:
        claim, separator, directory = option.partition("=")
        if not (claim and separator and directory):
            fail(f"--volume {option}: write it as CLAIM=DIR")
        claims[claim] = Path(directory)
    return claims


def _tell(ended: TrainerEnd, trainer: TrainerProcess) -> None:
    command = "kubectl distill" if Path(sys.argv[0]).name == "kubectl-distill" else "distill"
    again = f"{command} {shlex.join(sys.argv[1:])}"
    if ended.stopped:
        typer.echo(f"to go on: {again}")
    elif ended.code == ExitCode.DONE:
        typer.echo("  ".join(filter(None, [f"done: {trainer.best}", ended.scores()])))
        if (report := trainer.results / JobFile.REPORT).exists():
            typer.echo(f"report: {report}")
    elif ended.code != ExitCode.PERMANENT:
        typer.echo(f"to try again from the last checkpoint: {again}", err=True)
