"""`distill download`: files of a job, from its checkpoints claim."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Protocol

import typer

from distill_api.constants import JobFile
from distill_cli import output
from distill_cli.cluster import JobName, with_cluster
from distill_cli.views import text
from distill_client import Client, ClientError, Job, NotFound
from distill_client.pods.files import Files, RemoteFile, files_of

BULK = ("checkpoints/*", "tensorboard/*")
"""What is left out unless it is asked for."""
Image = Annotated[
    str | None, typer.Option(help="Image of the reader pod, with Python; default: the job's trainer image.")
]


@with_cluster
def command(
    client: Client,
    job: JobName,
    to: Annotated[Path | None, typer.Option("--to", "-d", metavar="DIR", help="Directory; default: ./JOB.")] = None,
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="PATTERN", help="Only such files, for example 'weights/*'. Can be repeated."),
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="Also checkpoints and TensorBoard's files.")] = False,
    list_only: Annotated[bool, typer.Option("--list", help="Only list the files.")] = False,
    image: Image = None,
) -> None:
    """Download weights, report, curves and pictures of a job, and check their digests.

    It reads in rank 0's pod while that runs; else in a pod of its own, which has the claim read-only and is deleted.
    """
    found = client.get(job)
    with files_of(client, found, image=image) as files:
        chosen = choose(files.list(), only or [], everything)
        if list_only:
            for file in chosen:
                typer.echo(f"{text.size(file.size):>10}  {file.name}")
            return
        if not chosen:
            raise NotFound(f"DistillJob {job} has no such files", f"distill download {job} --list --all")
        folder = to or Path(job)
        fetch(files, found, chosen, folder)
    typer.echo(f"{text.plural(len(chosen), 'file')} in {folder}")


def choose(files: Sequence[RemoteFile], patterns: Sequence[str], everything: bool) -> list[RemoteFile]:
    """The files that the patterns name; without any, all but those of BULK."""
    if patterns:
        return [file for file in files if any(fnmatch(file.name, pattern) for pattern in patterns)]
    return [file for file in files if everything or not any(fnmatch(file.name, pattern) for pattern in BULK)]


def fetch(files: Files, job: Job, chosen: Sequence[RemoteFile], folder: Path) -> None:
    """Download files below a folder. Raises ClientError if the weights are not those of the job's result."""
    result = job.status.result
    expected = {JobFile.BEST: result.sha256} if result is not None else {}
    with _progress(sum(file.size for file in chosen)) as bar:
        for file in chosen:
            bar.name(file.name)
            digest = files.fetch(file.name, folder / file.name, bar.advance)
            if expected.get(file.name, digest) != digest:
                (folder / file.name).unlink()
                raise ClientError(
                    f"{file.name} is not the job's result: its SHA-256 is {digest}, the status says {result.sha256}"
                    if result
                    else "",
                    "something else has written to the job's folder",
                )


class Bar(Protocol):
    """Shows how far it is."""

    def name(self, file: str) -> None:
        """The file that comes next."""

    def advance(self, octets: int) -> None:
        """So many bytes have come."""


class _Silent:
    def name(self, file: str) -> None:
        typer.echo(file)

    def advance(self, octets: int) -> None:
        del octets


@contextmanager
def _progress(whole: int) -> Iterator[Bar]:
    """A bar in a terminal; else a line for each file."""
    console = output.console()
    if not console.is_terminal:
        yield _Silent()
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=whole)

        class Shown:
            def name(self, file: str) -> None:
                progress.update(task, description=file)

            def advance(self, octets: int) -> None:
                progress.advance(task, octets)

        yield Shown()
