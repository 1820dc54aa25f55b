"""Reading a user's DistillJob file, and telling a user's mistakes."""

from pathlib import Path
from typing import NoReturn

import typer

from distill_api.constants import ExitCode
from distill_api.job import DistillJob, InvalidJob, read_job


def load(path: Path) -> DistillJob:
    """The job in a YAML file. Ends the command with one line per mistake and exit code 78 when it has any."""
    try:
        return read_job(path.read_text(encoding="utf-8"))
    except InvalidJob as error:
        fail(*(f"{path}: {line}" for line in str(error).splitlines()))
    except UnicodeDecodeError:
        fail(f"{path}: not a YAML file: it is no UTF-8 text")
    except OSError as error:
        fail(f"{path}: {error.strerror}")


def fail(*lines: str) -> NoReturn:
    """End the command because of a mistake of the user's, without a traceback."""
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(int(ExitCode.PERMANENT))
