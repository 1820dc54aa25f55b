"""`distill run`: runs a DistillJob on this machine, with the same trainer and checkpoints as on a cluster."""

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
from distill_api.reasons import Reason
from distill_api.spec.fields import DistillJobSpec
from distill_cli.jobfile import fail, load
from distill_local.machine import Machine, UserError
from distill_local.trainer_process import TrainerEnd, TrainerProcess


def command(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with one DistillJob.")],
    nproc: Annotated[
        int | None,
        typer.Option(min=1, help="Number of ranks; default: nodes times processes per node of the job."),
    ] = None,
    runs: Annotated[Path, typer.Option(help="Directory for the results of local runs.")] = Path("runs"),
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLAIM=DIR", help="Directory to use for a claim of the job; default: <runs>/volumes/<claim>."
        ),
    ] = None,
    device: Annotated[
        Literal["auto", "cuda", "cpu"] | None, typer.Option(help="Device to use instead of the job's.")
    ] = None,
) -> None:
    """Run a DistillJob on this machine. Ctrl-C commits a checkpoint; run the same command again to resume from it.

    In a terminal a bar shows progress, losses, mAP and ETA below the trainer's lines.
    """
    job, terminal = _with_device(load(file), device), sys.stdout.isatty()
    try:
        trainer = TrainerProcess(job, Machine(runs, _claims(volume or []), nproc), piped=terminal)
    except UserError as error:
        fail(str(error))

    def forward_signal(_signum: int, _frame: FrameType | None) -> None:
        # Where the trainer shares a terminal, it gets Ctrl-C too; it ignores repeated requests.
        trainer.stop()

    with trainer:
        typer.echo(trainer.announcement())
        trainer.start()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, forward_signal)
        end = _wait_with_bar(trainer) if terminal else trainer.wait()
    _print_end(end, trainer)
    raise typer.Exit(end.code)


def _wait_with_bar(trainer: TrainerProcess) -> TrainerEnd:
    from distill_cli import output
    from distill_cli.live.run import run_with_bar

    return run_with_bar(trainer, output.console())


def _with_device(job: DistillJob, device: str | None) -> DistillJob:
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
            fail(f"--volume {option}: must be CLAIM=DIR")
        claims[claim] = Path(directory)
    return claims


def _print_end(end: TrainerEnd, trainer: TrainerProcess) -> None:
    program = "kubectl distill" if Path(sys.argv[0]).name == "kubectl-distill" else "distill"
    command = f"{program} {shlex.join(sys.argv[1:])}"
    if end.stopped:
        typer.echo(f"to resume: {command}")
    elif end.message is not None and end.message.reason == Reason.CHECKED:
        typer.echo(f"checked: {end.message.message}")
    elif end.code == ExitCode.DONE:
        typer.echo("  ".join(filter(None, [f"done: {trainer.best}", end.scores()])))
        if (report := trainer.results / JobFile.REPORT).exists():
            typer.echo(f"report: {report}")
    elif end.code != ExitCode.PERMANENT:
        typer.echo(f"to retry from the last checkpoint: {command}", err=True)
