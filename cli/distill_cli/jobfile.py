"""Loads DistillJob files and prints users' errors."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import typer

from distill_api.constants import ExitCode
from distill_api.job import DistillJob, InvalidJob, parse_job, read_document

STDIN = Path("-")


class JobDocument(NamedTuple):
    """A valid job as it is written, and as the contract's model."""

    name: str
    """Of the file, for messages."""
    raw: dict[str, Any]
    job: DistillJob


def load(path: Path) -> DistillJob:
    """Load a DistillJob from a YAML file. If it is invalid, print one line per error and exit with code 78."""
    return _read(str(path), path.read_bytes).job


def load_document(path: Path) -> JobDocument:
    """The same with the document; `-` is standard input."""
    if path != STDIN:
        return _read(str(path), path.read_bytes)
    return _read("standard input", sys.stdin.buffer.read)


def _read(name: str, content: Callable[[], bytes]) -> JobDocument:
    try:
        raw = read_document(content().decode("utf-8"))
        return JobDocument(name, raw, parse_job(raw))
    except InvalidJob as error:
        fail(*(f"{name}: {line}" for line in str(error).splitlines()))
    except UnicodeDecodeError:
        fail(f"{name}: not a YAML file: not UTF-8 text")
    except OSError as error:
        fail(f"{name}: {error.strerror}")


def fail(*lines: str) -> NoReturn:
    """Print each line as an error and exit with code 78, without a traceback."""
    for line in lines:
        typer.echo(f"error: {line}", err=True)
    raise typer.Exit(int(ExitCode.PERMANENT))
