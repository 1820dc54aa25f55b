"""`distill validate`: validates a DistillJob file like the API server does."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distill_api.spec.recipe import chosen
from distill_cli.jobfile import load


def validate(file: Annotated[Path, typer.Argument(help="YAML file with one DistillJob.")]) -> None:
    """Validate a DistillJob file. Prints one line per error and exits with code 78 if there are any."""
    job = load(file)
    typer.echo(f"{file}: DistillJob {job.metadata.name} is valid")
    if (fields := chosen(job.spec)) is not None:
        typer.echo(f"recipe: auto stands for {json.dumps(fields)}")
