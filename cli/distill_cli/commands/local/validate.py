"""`distill validate`: validates a DistillJob file like the API server does, or lets the cluster check it."""

import json
from pathlib import Path
from typing import Annotated

import typer

from distill_api.spec.recipe import chosen
from distill_cli.cluster import Connect, with_cluster_later
from distill_cli.exits import Exit
from distill_cli.jobfile import load_document
from distill_cli.live.checking import Timeout, check
from distill_client import Refused


@with_cluster_later
def command(
    connect: Connect,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with one DistillJob; - is standard input.")],
    cluster: Annotated[
        bool, typer.Option("--cluster", help="Also ask the API server (dry run), and check the files with a pod.")
    ] = False,
    pod: Annotated[bool, typer.Option(help="With --cluster: start the pod; without it nothing is created.")] = True,
    timeout: Timeout = 600,
) -> None:
    """Validate a DistillJob file. Prints one line per error and exits with code 78 if there are any.

    With --cluster the API server checks it as well, and then a pod with the job's image and volumes: it needs no
    accelerator, loads student and teacher, compares their classes with the data set's, and reads all labels. It is a
    DistillJob of its own, which is deleted at the end.
    """
    name, raw, job = load_document(file)
    client = connect() if cluster else None
    if client is not None:
        try:
            client.apply(raw, dry_run=True)
        except Refused as error:
            for cause in error.causes or (error.message,):
                typer.echo(f"error: {name}: {cause}", err=True)
            raise typer.Exit(int(Exit.INVALID)) from None
    where = f", and {client.connection.context} accepts it" if client is not None else ""
    typer.echo(f"{name}: DistillJob {job.metadata.name} is valid{where}")
    if (fields := chosen(job.spec)) is not None:
        typer.echo(f"recipe: auto stands for {json.dumps(fields)}")
    if client is not None and pod:
        check(client, name, raw, timeout)
