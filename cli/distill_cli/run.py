"""`distill run`: the same trainer, checkpoints and resume as on a cluster, on this machine."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import typer
from pydantic import ValidationError

from distill_api.constants import Env, ExitCode, JobFile
from distill_api.job import DistillJob
from distill_api.report import TerminationMessage
from distill_api.run import RunConfig
from distill_api.spec import DistillJobSpec
from distill_cli.jobfile import fail, load
from distill_cli.local import Machine, Mistake, run_config


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
    job = load(file)
    if find_spec("distill_trainer") is None or find_spec("torch") is None:
        fail("the trainer is not installed here; install distill-operator[trainer]")
    with tempfile.TemporaryDirectory(prefix="distill-run-") as folder:
        termination = Path(folder) / "termination.json"
        try:
            config = run_config(
                _on_device(job, device), Machine(runs, _claims(volume or []), nproc), _free_port(), termination
            )
        except Mistake as mistake:
            fail(str(mistake))
        results = Path(config.directories.checkpoints) / config.job
        again = "resuming" if config.attempt > 1 else "starting"
        typer.echo(f"{again} {config.job}, attempt {config.attempt}, {config.world_size} ranks; results in {results}")
        code = _launch(config)
        text = termination.read_text() if termination.exists() else None
        message = TerminationMessage.model_validate_json(text) if text else None
    _tell(code, message, results, file)
    raise typer.Exit(code)


def _on_device(job: DistillJob, device: str | None) -> DistillJob:
    if device is None:
        return job
    try:
        spec = DistillJobSpec.model_validate(job.spec.to_wire() | {"device": device})
    except ValidationError as error:
        fail(*(str(item["msg"]).removeprefix("Value error, ") for item in error.errors()))
    return job.model_copy(update={"spec": spec})


def _claims(options: list[str]) -> dict[str, Path]:
    claims = {}
    for option in options:
        claim, separator, directory = option.partition("=")
        if not (claim and separator and directory):
            fail(f"--volume {option}: write it as CLAIM=DIR")
        claims[claim] = Path(directory)
    return claims


def _launch(config: RunConfig) -> int:
    environ = {**os.environ, Env.RUN: config.model_dump_json(by_alias=True), Env.NODE_RANK: "0"}
    trainer = subprocess.Popen([sys.executable, "-m", "distill_trainer"], env=environ)

    def pass_on(_signum: int, _frame: FrameType | None) -> None:
        # A terminal tells the trainer as well; it counts only the first.
        trainer.send_signal(signal.SIGTERM)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, pass_on)
    code = trainer.wait()
    return 128 - code if code < 0 else code


def _tell(code: int, message: TerminationMessage | None, results: Path, file: Path) -> None:
    if code == ExitCode.STOPPED:
        typer.echo(f"to go on: distill run {file} (with the same options)")
    elif code == ExitCode.DONE and message is not None:
        result = message.result
        scores = [
            f"{name} mAP50-95 {value:.4f}"
            for name, value in (
                ("student", result.student_map if result else None),
                ("teacher", result.teacher_map if result else None),
            )
            if value is not None
        ]
        typer.echo("  ".join([f"done: {results / JobFile.BEST}", *scores]))
    elif code != ExitCode.PERMANENT:
        typer.echo(f"to try again from the last checkpoint: distill run {file} (with the same options)", err=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
