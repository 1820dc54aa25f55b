"""`distill resume`: go on from the last checkpoint."""

import typer

from distill_cli.cluster import JobNames, with_cluster
from distill_cli.commands.jobs.suspend import Timeout, Wait
from distill_client import Client


@with_cluster
def command(client: Client, jobs: JobNames, wait: Wait = False, timeout: Timeout = 600) -> None:
    """Let suspended jobs go on from their last checkpoint. --wait: until they train."""
    for name in jobs:
        job = client.get(name)
        if job.status.over:
            typer.echo(f"{name} is {job.phase}: it does not run again; distill restart {name} --as NAME runs it anew")
            continue
        if not job.spec.suspend:
            typer.echo(f"{name} is not suspended ({job.phase})")
            continue
        client.resume(name)
        step = job.committed_step
        typer.echo(f"{name} resumes from {f'step {step:,}' if step else 'the beginning'}")
    for name in jobs if wait else ():
        typer.echo(f"{name} is {client.wait(name, 'running', timeout=timeout).phase}")
