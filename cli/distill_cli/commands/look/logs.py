"""`distill logs`: the logs of a job's pods, merged."""

import re
from collections.abc import Iterable
from typing import Annotated

import typer

from distill_cli.cluster import Connect, JobName, stop, with_cluster_later
from distill_cli.exits import Exit
from distill_client import Client, Conflict, Job, LogLine, NotFound
from distill_client.installation import operators
from distill_client.logs import merged, read


@with_cluster_later
def command(
    connect: Connect,
    job: JobName,
    rank: Annotated[int | None, typer.Option("--rank", min=0, help="Only the pod of this rank; default: 0.")] = None,
    all_ranks: Annotated[bool, typer.Option("--all", help="All pods, in the order of time.")] = False,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on until the pods have ended.")] = False,
    previous: Annotated[
        bool,
        typer.Option("-p", "--previous", help="Of the attempt before; what is recorded of it if its pods are gone."),
    ] = False,
    operator: Annotated[bool, typer.Option("--operator", help="The operator's lines about this job.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Only the last lines of each pod.")] = None,
    timestamps: Annotated[bool, typer.Option(help="Print the time before each line.")] = False,
) -> None:
    """Print the log of rank 0's pod, of another rank's, or of all pods in the order of time."""
    if rank is not None and all_ranks:
        stop("--rank and --all exclude each other", Exit.USAGE)
    if operator and (rank is not None or all_ranks or previous):
        stop("--operator excludes --rank, --all and --previous", Exit.USAGE)
    client = connect()
    found = client.get(job)
    if operator:
        _print(_of_operator(client, found, follow, tail), prefix=False, timestamps=timestamps)
        return
    attempt = found.status.attempt - 1 if previous else found.status.attempt
    if attempt < 1:
        what = "has had only one attempt" if previous else "has not started an attempt yet"
        raise Conflict(f"DistillJob {job} {what}", f"distill why {job}")
    chosen = None if all_ranks else rank or 0
    try:
        lines = client.logs(job, chosen, attempt=attempt, follow=follow, tail=tail)
    except NotFound:
        if previous and _print_record(found, attempt):
            return
        raise
    _print(lines, prefix=all_ranks, timestamps=timestamps)


def _print(lines: Iterable[LogLine], *, prefix: bool, timestamps: bool) -> None:
    """A pod's name is as long as the job's; what tells pods apart is what follows the attempt."""
    for line in lines:
        time = f"{line.time} " if timestamps else ""
        who = f"[{line.pod}] " if prefix else ""
        typer.echo(f"{time}{who}{line.text}")


def _print_record(job: Job, number: int) -> bool:
    """What the status has of an attempt whose pods are gone; False if it has nothing."""
    attempt = next((a for a in job.status.attempts if a.number == number), None)
    if attempt is None:
        return False
    typer.echo(f"the pods of attempt {number} are gone; the operator recorded:", err=True)
    for line in filter(None, [f"{attempt.reason}: {attempt.message}", *(attempt.decision or [])]):
        typer.echo(line)
    return True


def _of_operator(client: Client, job: Job, follow: bool, tail: int | None) -> Iterable[LogLine]:
    """Lines of the operator's pods that name the job."""
    pods = operators(client)
    if not pods:
        raise NotFound("no pod of the operator was found in any namespace", "distill doctor")
    query = {**({"follow": "true"} if follow else {}), **({"tailLines": str(tail)} if tail is not None else {})}
    about = re.compile(rf"(?<![\w/-]){re.escape(f'{job.namespace}/{job.name}')}(?![\w-])|{re.escape(job.uid)}")
    sources = {}
    for pod in pods:
        metadata = pod["metadata"]
        lines = read(client.connection, metadata["namespace"], metadata["name"], "operator", **query)
        sources[metadata["name"]] = (line for line in lines if about.search(line.text))
    if not follow:
        return merged(sources)
    from distill_client.logs import follow as followed

    return followed(sources)
