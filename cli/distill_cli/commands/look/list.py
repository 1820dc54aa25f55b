"""`distill list`: the jobs of a namespace."""

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from distill_cli import output
from distill_cli.cluster import AllNamespaces, ListFormat, Output, Watch, with_cluster
from distill_client import Client

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_SECONDS = 2.0


@with_cluster
def command(
    client: Client, output_format: ListFormat = Output.TABLE, all_namespaces: AllNamespaces = False,
    watch: Watch = False,
) -> None:  # fmt: skip
    """List jobs: phase, progress, scores, restarts. -o wide adds reason, models, speed and goodput."""
    if output_format == Output.NAME:
        output.names(client.list(all_namespaces=all_namespaces))
        return
    if output.is_data(output_format):
        output.objects(client.list(all_namespaces=all_namespaces), output_format)
        return
    console = output.console()
    if not (watch and console.is_terminal):
        console.print(_table(client, output_format, all_namespaces))
        return
    from rich.live import Live

    with Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            live.update(_table(client, output_format, all_namespaces), refresh=True)
            time.sleep(REFRESH_SECONDS)


def _table(client: Client, output_format: Output, all_namespaces: bool) -> "RenderableType":
    from distill_cli.screens import tables
    from distill_cli.views.row import row

    jobs = client.list(all_namespaces=all_namespaces)
    if not jobs:
        where = "any namespace" if all_namespaces else f"namespace {client.namespace}"
        typer.echo(f"no DistillJobs in {where}", err=True)
    now = datetime.now(UTC)
    found = [row(job, now) for job in jobs]
    return tables.rows(found, namespaces=all_namespaces, wide=output_format == Output.WIDE)
