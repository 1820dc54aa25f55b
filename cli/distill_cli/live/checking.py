"""What `validate --cluster` and `apply --check` say while a pod checks a job, and how they end if it is not well."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from distill_api.pod.report import WARNING
from distill_cli.cluster import stop
from distill_cli.exits import Exit
from distill_client import Client, Job

Timeout = Annotated[float, typer.Option(min=1, help="Seconds that the check may take, with its node and image.")]


def check(client: Client, file: str, raw: dict[str, Any], timeout: float) -> None:
    """Check the job with a pod and print what was found. Exits with 78 if something must be changed first."""
    from distill_cli.views.job.why import remedy

    typer.echo("checking volumes, models and data set with a pod, which takes no accelerator and trains nothing")
    found = client.check(raw, timeout=timeout, told=_teller())
    if found.passed:
        said, *warnings = found.message.split(WARNING)
        typer.echo(f"{file}: {said}")
        for warning in warnings:
            typer.echo(f"warning: {file}: {warning}", err=True)
        return
    code = Exit.INVALID if found.reason.facts.needs_change else Exit.JOB_FAILED
    stop(f"{file}: {found.reason}: {found.message}", code, remedy(found.reason))


def _teller() -> Callable[[Job], None]:
    """Prints each new state of a check."""
    from distill_client.checking import state

    said = ""

    def tell(job: Job) -> None:
        nonlocal said
        now = state(job)
        if now and now != said and not job.status.over:
            typer.echo(f"  {now}")
        said = now

    return tell
