"""`distill suspend`: commit and stop."""

from typing import Annotated

import typer

from distill_cli.cluster import JobNames, with_cluster
from distill_client import Client

Wait = Annotated[bool, typer.Option("--wait", help="Wait until it is so.")]
Timeout = Annotated[float, typer.Option(min=1, help="Seconds to wait.")]


@with_cluster
def command(client: Client, jobs: JobNames, wait: Wait = False, timeout: Timeout = 600) -> None:
    """Let jobs commit a checkpoint and stop; their nodes become free. distill resume goes on from there."""
    for name in jobs:
        job = client.get(name)
        if job.status.over:
            typer.echo(f"{name} is {job.phase}: there is nothing to suspend")
            continue
        if job.spec.suspend:
            typer.echo(f"{name} is suspended already ({job.phase})")
        else:
            client.suspend(name)
            typer.echo(f"{name} commits a checkpoint and stops")
    for name in jobs if wait else ():
        typer.echo(f"{name} is {client.wait(name, 'suspended', timeout=timeout).phase}")
