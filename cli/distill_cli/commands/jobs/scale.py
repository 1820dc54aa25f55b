"""`distill scale`: other numbers of nodes."""

from typing import Annotated

import typer

from distill_cli.cluster import JobName, with_cluster
from distill_client import Client


@with_cluster
def command(client: Client, job: JobName, nodes: Annotated[int, typer.Option(min=1, help="Number of nodes.")]) -> None:
    """Change the number of nodes of an elastic job. The result of the training stays the same."""
    before = client.get(job)
    if before.spec.nodes == nodes:
        typer.echo(f"{job} asks for {nodes} nodes already")
        return
    client.scale(job, nodes)
    if nodes < before.spec.nodes:
        said = "the attempt commits, and one with fewer nodes replaces it"
    else:
        said = "the operator asks for the others, and the job grows when it gets them"
    typer.echo(f"{job}: {before.spec.nodes} → {nodes} nodes; {said}")
