"""`distill status`: everything about one job."""

from typing import Annotated

import typer

from distill_cli import output
from distill_cli.cluster import JobName, Output, StatusFormat, Watch, with_cluster
from distill_cli.exits import Exit
from distill_client import Client


@with_cluster
def command(
    client: Client,
    job: JobName,
    watch: Watch = False,
    curves: Annotated[
        bool, typer.Option(help="Read rank 0's log for the curves of losses and mAP; needs the right to read logs.")
    ] = True,
    attempts: Annotated[int, typer.Option(min=0, help="How many attempts to list.")] = 5,
    output_format: StatusFormat = Output.TABLE,
) -> None:
    """Show all about a job: phase and cause, progress, curves, goodput, pods, attempts, events.

    With -w it is kept up to date until the job has ended; the exit code is then 8 if it is Failed. -o json and yaml
    print the job as the API server has it.
    """
    from distill_cli.live.look import Look, watched

    if output.is_data(output_format):
        output.data(client.get(job).raw, output_format)
        return
    if output_format == Output.NAME:
        output.names([client.get(job)])
        return
    look = Look(client, job, curves=curves)
    if not watch:
        output.console().print(look.screen(attempts))
        return
    if watched(look, attempts).phase == "Failed":
        raise typer.Exit(int(Exit.JOB_FAILED))
