"""Loads DistillJob files and prints users' errors."""

from pathlib import Path
from typing import NoReturn

import typer

from distill_api.constants import ExitCode
from distill_api.job import DistillJob, InvalidJob, read_job


def load(path: Path) -> DistillJob:
    """Load a DistillJob from a YAML file. If it is invalid, print one line per error and exit with code 78."""
    try:
        return read_job(path.read_text(encoding="utf-8"))
    except InvalidJob as error:
        fail(*(f"{path}: {line}" for line in str(error).splitlines()))
    except UnicodeDecodeError:
        fail(f"{path}: not a YAML file: not UTF-8 text")
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def fail(*lines: str) -> NoReturn:
    """Print each line as an error and exit with code 78, without a traceback."""
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(int(ExitCode.PERMANENT))
