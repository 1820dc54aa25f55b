"""`distill why`: the cause, the evidence, and what to do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from distill_api.constants import Label, Phase
from distill_cli import output
from distill_cli.cluster import JobName, Output, OutputFormat, with_cluster
from distill_client import Client, Job
from distill_client.apiserver.kinds import Object

if TYPE_CHECKING:
    from distill_cli.views.job.ranks import RankTime


@with_cluster
def command(
    client: Client,
    job: JobName,
    attempts: Annotated[int, typer.Option(min=0, help="How many ended attempts to explain.")] = 3,
    ranks: Annotated[
        bool, typer.Option(help="Ask the ranks where their time goes; needs the right to forward ports of pods.")
    ] = True,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """Say why a job waits, restarted, is slow or failed: what the operator recorded, what was seen, what to do."""
    from distill_cli.live.look import belongings
    from distill_cli.views.job.why import why_view

    found = client.get(job)
    pods, events, claims = belongings(client, found)
    times = _times(client, found, pods) if ranks and found.phase == Phase.RUNNING else []
    view = why_view(found, pods, events, datetime.now(UTC), attempts, claims=claims, ranks=times)
    if output.is_data(output_format):
        output.data(view, output_format)
        return
    from distill_cli.screens.why import why

    output.console().print(why(view))


def _times(client: Client, job: Job, pods: list[Object]) -> list[RankTime]:
    from distill_cli.views.job.ranks import rank_time
    from distill_client.pods.ranks import rank_metrics

    mine = [pod for pod in pods if pod["metadata"]["labels"].get(Label.ATTEMPT) == str(job.status.attempt)]
    times = (rank_time(*metrics) for metrics in rank_metrics(client, job, mine))
    return [time for time in times if time is not None]
