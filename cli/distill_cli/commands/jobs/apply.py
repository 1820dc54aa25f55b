"""`distill apply`: create or change a job, and say before what will happen."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from distill_cli.cluster import Connect, with_cluster_later
from distill_cli.exits import Exit
from distill_cli.jobfile import load_document
from distill_cli.live import checking
from distill_cli.live.checking import Timeout
from distill_cli.views.changes import overlay
from distill_cli.views.plan import ApplyPlan, creation, update
from distill_client import Client, ClientError, Job, NotFound, Refused
from distill_client.apiserver.kinds import Object
from distill_client.document import document


@with_cluster_later
def command(
    connect: Connect,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with one DistillJob; - is standard input.")],
    diff: Annotated[
        bool, typer.Option("--diff", help="Only say what would happen: exit code 9 if anything would, 1 if refused.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="First let a pod check volumes, models and data set, as validate --cluster.")
    ] = False,
    timeout: Timeout = 600,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Then show the job until it has ended.")] = False,
) -> None:
    """Create or change a job. It first asks the API server what that would do, and says so: what is new, which fields
    change and when each change takes effect, or what is refused and why. Fields that the file does not have keep their
    values, as with kubectl apply --server-side.
    """
    file_name, raw, job = load_document(file)
    client, name = connect(), job.metadata.name
    plan, refused = _plan(client, raw, name)
    for line in plan.lines():
        typer.echo(line)
    if refused is not None:
        raise refused
    if diff:
        raise typer.Exit(int(Exit.DIFFERS if plan.changes_something else Exit.DONE))
    if check and plan.changes_something:
        checking.check(client, file_name, raw, timeout)
    if plan.changes_something:
        client.apply(raw)
        typer.echo(f"{name} {'created' if plan.new else 'changed'}")
    if watch:
        from distill_cli.live.look import Look, watched

        if watched(Look(client, name), attempts=5).phase == "Failed":
            raise typer.Exit(int(Exit.JOB_FAILED))


def _plan(client: Client, raw: Object, name: str) -> tuple[ApplyPlan, Refused | None]:
    """What would happen, and why not. The API server decides; the plan explains."""
    stored = _stored(client, name)
    try:
        would_be = client.apply(raw, dry_run=True)
    except Refused as error:
        wanted = document(raw, client.namespace)["spec"]
        plan = update(stored, overlay(stored.raw["spec"], wanted)) if stored is not None else ApplyPlan(name, new=True)
        return plan, error
    if stored is not None:
        return update(stored, would_be.raw["spec"]), None
    return creation(would_be, _missing_claims(client, would_be)), None


def _missing_claims(client: Client, job: Job) -> set[str]:
    """Claims that the job names and nobody has made yet; none if the user may not look."""
    try:
        return set(job.claims.values()) - {claim["metadata"]["name"] for claim in client.claims(job)}
    except ClientError:
        return set()


def _stored(client: Client, name: str) -> Job | None:
    try:
        return client.get(name)
    except NotFound:
        return None
