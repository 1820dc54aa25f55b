"""`distill events`: what happened to a job and its pods."""

from collections.abc import Sequence
from typing import Annotated

import typer

from distill_cli import output
from distill_cli.cluster import JobName, Output, OutputFormat, with_cluster
from distill_cli.live.pauses import pauses
from distill_cli.views.job.pods import EventRow, event_rows
from distill_client import Client
from distill_client.apiserver.patience import Patience

POLL_SECONDS = 2.0


@with_cluster
def command(
    client: Client,
    job: JobName,
    watch: Annotated[bool, typer.Option("-w", "--watch", help="Print new events until Ctrl-C.")] = False,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """List the events of a job, its Jobs, pods and claims, oldest first. The cluster keeps events for about an hour."""
    client.get(job)
    patience = Patience()
    rows = event_rows(patience.read(lambda: client.events(job)), job)
    if output.is_data(output_format):
        output.data(rows, output_format)
        return
    _print(rows)
    if not rows:
        typer.echo(f"the cluster has no events of {job}; distill why {job} has what the operator recorded", err=True)
    with pauses(POLL_SECONDS) as pause:
        while watch:
            pause()
            now = event_rows(patience.read(lambda: client.events(job)), job)
            _print([row for row in now if row not in rows])
            rows = now


def _print(rows: Sequence[EventRow]) -> None:
    from distill_cli.screens import tables

    if rows:
        output.console().print(tables.events(rows))
