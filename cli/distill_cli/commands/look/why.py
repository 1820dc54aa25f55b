"""`distill why`: the cause, the evidence, and what to do."""

from datetime import UTC, datetime
from typing import Annotated

import typer

from distill_cli import output
from distill_cli.cluster import JobName, Output, OutputFormat, with_cluster
from distill_client import Client, Forbidden


@with_cluster
def command(
    client: Client,
    job: JobName,
    attempts: Annotated[int, typer.Option(min=0, help="How many ended attempts to explain.")] = 3,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """Say why a job waits, restarted, is slow or failed: what the operator recorded, what was seen, what to do."""
    from distill_cli.views.job.why import why_view

    found = client.get(job)
    try:
        pods, events, claims = client.pods(job), client.events(job), client.claims(found)
    except Forbidden:
        pods, events, claims = [], [], []
    view = why_view(found, pods, events, datetime.now(UTC), attempts, claims=claims)
    if output.is_data(output_format):
        output.data(view, output_format)
        return
    from distill_cli.screens.why import why

    output.console().print(why(view))
