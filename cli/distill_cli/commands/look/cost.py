"""`distill cost`: GPU-hours, useful and lost."""

from typing import Annotated

import typer

from distill_cli import output
from distill_cli.cluster import AllNamespaces, Output, OutputFormat, complete_jobs, with_cluster
from distill_client import Client


@with_cluster
def command(
    client: Client,
    jobs: Annotated[
        list[str] | None,
        typer.Argument(metavar="JOB", help="Jobs; default: all.", autocompletion=complete_jobs),
    ] = None,
    all_namespaces: AllNamespaces = False,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """Show the GPU-hours of jobs: useful, stalled, and lost by the reason that caused it. CPU jobs: node-hours."""
    from distill_cli.views.job.attempts import cost, costs_of

    found = [client.get(name) for name in jobs] if jobs else client.list(all_namespaces=all_namespaces)
    costs, problems = ([cost(job) for job in found], []) if jobs else costs_of(found)
    for problem in problems:
        typer.echo(f"left out: {problem}", err=True)
    if output.is_data(output_format):
        output.data(costs, output_format)
        return
    from distill_cli.screens import tables

    output.console().print(tables.costs(costs))
