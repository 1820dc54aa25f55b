"""`distill list`: the jobs of a namespace."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import typer

from distill_cli import output
from distill_cli.cluster import AllNamespaces, ListFormat, Output, Watch, with_cluster
from distill_cli.live.pauses import pauses
from distill_client import Client, Job
from distill_client.apiserver.patience import Patience

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
        jobs = client.list(all_namespaces=all_namespaces)
        if not jobs:
            typer.echo(_none(client, all_namespaces), err=True)
        console.print(_table(jobs, output_format, all_namespaces))
        return
    from rich.live import Live
    from rich.text import Text

    patience = Patience()
    with pauses(REFRESH_SECONDS) as pause, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            jobs = patience.read(lambda: client.list(all_namespaces=all_namespaces))
            drawn = _table(jobs, output_format, all_namespaces) if jobs else Text(_none(client, all_namespaces))
            live.update(drawn, refresh=True)
            pause()


def _none(client: Client, all_namespaces: bool) -> str:
    return f"no DistillJobs in {'any namespace' if all_namespaces else f'namespace {client.namespace}'}"


def _table(jobs: Sequence[Job], output_format: Output, all_namespaces: bool) -> "RenderableType":
    from distill_cli.screens import tables
    from distill_cli.views.row import row

    now = datetime.now(UTC)
    found = [row(job, now) for job in jobs]
    return tables.rows(found, namespaces=all_namespaces, wide=output_format == Output.WIDE)
