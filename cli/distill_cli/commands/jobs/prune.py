"""`distill prune`: old jobs that have ended."""

import re
from datetime import UTC, datetime
from typing import Annotated

import typer

from distill_cli.cluster import AllNamespaces, Connect, Yes, with_cluster_later
from distill_cli.commands.jobs.delete import losses
from distill_cli.views import text
from distill_client import Job

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


def seconds(value: str) -> float:
    """A duration such as 12h or 30d. Raises typer.BadParameter."""
    match = re.fullmatch(r"(\d+)([smhdw])", value)
    if match is None:
        raise typer.BadParameter(f"{value} is not a duration; write one such as 12h, 30d or 4w")
    return int(match[1]) * _UNITS[match[2]]


@with_cluster_later
def command(
    connect: Connect,
    older_than: Annotated[
        str, typer.Option(metavar="DURATION", help="Only jobs that ended this long ago, such as 12h, 30d or 4w.")
    ] = "30d",
    failed: Annotated[bool, typer.Option("--failed", help="Only Failed jobs.")] = False,
    keep_results: Annotated[bool, typer.Option(help="Leave jobs whose claims would be deleted with them.")] = True,
    all_namespaces: AllNamespaces = False,
    yes: Yes = False,
) -> None:
    """Delete DistillJobs that ended long ago. Without --yes it only lists them.

    Files on existing claims stay: the folder of each job is named, so that you can delete it there.
    """
    now, limit = datetime.now(UTC), seconds(older_than)
    client = connect()
    found = [job for job in client.list(all_namespaces=all_namespaces) if _old(job, now, limit, failed)]
    chosen = [job for job in found if not (keep_results and losses(job))]
    for job in found:
        _say(job, now, skipped=job not in chosen)
    if not chosen:
        typer.echo("nothing to delete")
        return
    if not yes:
        typer.echo(f"{text.plural(len(chosen), 'job')} would be deleted; --yes deletes them")
        return
    for job in chosen:
        client.delete(job.name, uid=job.uid, namespace=job.namespace)
        typer.echo(f"{job.namespace}/{job.name} deleted")


def _old(job: Job, now: datetime, limit: float, only_failed: bool) -> bool:
    if not job.readable or job.deleting or not job.status.over or job.status.finished_at is None:
        return False
    if only_failed and job.phase != "Failed":
        return False
    return (now - job.status.finished_at).total_seconds() >= limit


def _say(job: Job, now: datetime, *, skipped: bool) -> None:
    ended = text.since(job.status.finished_at, now)
    volume = job.spec.volumes.checkpoints
    folder = f"{volume.sub_path}/{job.name}" if volume.sub_path else job.name
    files = f"; its files stay in {folder}/ of claim {volume.claim_name}" if volume.claim_name else ""
    left = "; left, because its claims would be deleted with it (--no-keep-results)" if skipped else ""
    typer.echo(f"{job.namespace}/{job.name}  {job.phase} {ended} ago{files}{left}")
