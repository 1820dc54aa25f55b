"""`distill delete`: jobs, and what goes with them."""

import sys

import typer

from distill_cli.cluster import JobNames, Yes, with_cluster
from distill_cli.exits import Exit
from distill_client import Client, Job


@with_cluster
def command(client: Client, jobs: JobNames, yes: Yes = False) -> None:
    """Delete jobs. It says first what is lost; results on existing claims are kept."""
    found = [client.get(name) for name in jobs]
    lossy = False
    for job in found:
        lost = losses(job)
        lossy = lossy or bool(lost)
        for line in lost:
            typer.echo(f"{job.name}: {line}", err=True)
    if lossy and not yes:
        confirm(f"delete {', '.join(job.name for job in found)}?")
    for job in found:
        client.delete(job.name, uid=job.uid)
        typer.echo(f"{job.name} deleted")


def losses(job: Job) -> list[str]:
    """What is lost with the job, in sentences; empty if nothing is."""
    if not job.readable:
        return ["this version cannot read the job, so it cannot say what is lost with it"]
    lines = []
    if not job.status.over and job.status.attempt:
        lines.append(f"it is {job.phase}: its pods are stopped")
    volumes = job.spec.volumes.by_name().items()
    templates = [volume.claim(job.name, name) for name, volume in volumes if volume.claim_template]
    if templates and job.spec.persistent_volume_claim_retention_policy.when_deleted == "Delete":
        lines.append(f"deletes the claims that were made for it, with all that is in them: {', '.join(templates)}")
    return lines


def confirm(question: str) -> None:
    """Ask in a terminal; elsewhere end with an error, because --yes is missing."""
    if not sys.stdin.isatty():
        typer.echo("error: nothing was deleted, because nobody can be asked here", err=True)
        typer.echo("  try: --yes", err=True)
        raise typer.Exit(int(Exit.USAGE))
    if not typer.confirm(question):
        raise typer.Exit(int(Exit.FAILED))
