"""`distill open`: a job's report or curves."""

import shutil
import subprocess
import webbrowser
from pathlib import Path
from tempfile import mkdtemp
from typing import Annotated

import typer

from distill_api.constants import JobFile
from distill_cli.cluster import JobName, with_cluster
from distill_cli.commands.files.download import Image, choose, fetch
from distill_client import Client, ClientError, NotFound
from distill_client.files import files_of


@with_cluster
def command(
    client: Client,
    job: JobName,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Its curves in TensorBoard on this machine.")
    ] = False,
    browser: Annotated[bool, typer.Option(help="Open the browser; else only print where the file is.")] = True,
    image: Image = None,
) -> None:
    """Open a job's report in the browser, or with --tensorboard its curves. Both are downloaded first: the report is
    one file that loads nothing, and TensorBoard runs here, where it must be installed.
    """
    program = shutil.which("tensorboard")
    if tensorboard and program is None:
        raise ClientError("TensorBoard is not installed here", "pip install tensorboard")
    found, folder = client.get(job), Path(mkdtemp(prefix=f"distill-{job}-"))
    wanted = ["tensorboard/*"] if tensorboard else [JobFile.REPORT]
    with files_of(client, found, image=image) as files:
        chosen = choose(files.list(), wanted, everything=True)
        if not chosen and tensorboard:
            raise NotFound(f"DistillJob {job} has no curves yet", "they come with its first epoch")
        if not chosen:
            raise NotFound(f"DistillJob {job} has no report yet", "it is made at the end; --tensorboard has the curves")
        fetch(files, found, chosen, folder)
    if tensorboard and program is not None:
        subprocess.run([program, "--logdir", str(folder)], check=False)
        return
    report = folder / JobFile.REPORT
    typer.echo(str(report))
    if browser and not webbrowser.open(report.as_uri()):
        typer.echo("no browser was found; open the file above", err=True)
