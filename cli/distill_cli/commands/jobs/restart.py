"""`distill restart`: the next attempt of a job, or the whole job anew."""

from typing import Annotated

import typer

from distill_api.constants import API_VERSION, KIND
from distill_cli.cluster import JobName, with_cluster
from distill_cli.commands.jobs.suspend import Timeout
from distill_cli.exits import Exit
from distill_client import Client, Job, TimedOut


@with_cluster
def command(
    client: Client,
    job: JobName,
    name: Annotated[
        str | None,
        typer.Option("--as", metavar="NAME", help="Run the job from the beginning, as a new job of this name."),
    ] = None,
    timeout: Timeout = 600,
) -> None:
    """Stop a job after a commit, and start its next attempt: new pods, no lost step, charged to no budget.

    A job that has ended does not run again, and another job cannot use its checkpoints: --as creates a new job with the
    same spec, which begins at step 0. The old one stays.
    """
    found = client.get(job)
    if name is not None:
        client.create(_copy(found, name))
        typer.echo(f"{name} created with the spec of {job}; it begins at step 0")
        return
    if found.status.over:
        typer.echo(f"error: {job} is {found.phase} and does not run again", err=True)
        typer.echo(f"  try: distill restart {job} --as NAME, which runs it from the beginning", err=True)
        raise typer.Exit(int(Exit.FAILED))
    if found.spec.suspend:
        typer.echo(f"error: {job} is suspended; distill resume {job} starts its next attempt", err=True)
        raise typer.Exit(int(Exit.FAILED))
    _next_attempt(client, job, timeout)


def _next_attempt(client: Client, job: str, timeout: float) -> None:
    """Suspend, wait for the commit, resume. If that is interrupted, the job stays suspended, its work committed."""
    client.suspend(job)
    typer.echo(f"{job} commits a checkpoint and stops")
    try:
        stopped = client.wait(job, "suspended", timeout=timeout)
    except TimedOut as error:
        raise TimedOut(error.message, f"it stops when it can; then start it again with distill resume {job}") from None
    except KeyboardInterrupt:
        typer.echo(f"interrupted: {job} stays suspended; distill resume {job} starts it again", err=True)
        raise
    client.resume(job)
    step = stopped.committed_step
    typer.echo(f"{job} resumes from {f'step {step:,}' if step else 'the beginning'}")


def _copy(job: Job, name: str) -> dict[str, object]:
    """A new job with the spec of another, which is not suspended."""
    kept = {key: job.raw["metadata"][key] for key in ("labels",) if key in job.raw["metadata"]}
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name, **kept},
        "spec": {**job.raw["spec"], "suspend": False},
    }
