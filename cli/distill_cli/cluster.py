"""What all commands that talk to a cluster share: their options, their client, and how errors end."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from enum import StrEnum
from functools import partial, wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, Literal, NoReturn, ParamSpec

import typer

from distill_cli.exits import Exit, exit_code
from distill_cli.options import CLUSTER_OPTIONS
from distill_client import Client, ClientError

P = ParamSpec("P")


class Output(StrEnum):
    """Formats of -o; each command has some of them."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    NAME = "name"


def complete_jobs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of jobs that begin so, for the shell, in the namespace and cluster that the options before name; none if
    the cluster does not answer within two seconds.
    """
    try:
        client = Client(**{name: ctx.params.get(name) for name in CLUSTER_OPTIONS}, timeout=2.0)
        return [job.name for job in client.list() if job.name.startswith(incomplete)]
    except ClientError:
        return []


JobName = Annotated[str, typer.Argument(metavar="JOB", help="Name of the DistillJob.", autocompletion=complete_jobs)]
JobNames = Annotated[
    list[str], typer.Argument(metavar="JOB", help="Names of DistillJobs.", autocompletion=complete_jobs)
]
OutputFormat = Annotated[
    Literal[Output.TABLE, Output.JSON, Output.YAML], typer.Option("-o", "--output", help="table, json or yaml.")
]
StatusFormat = Annotated[
    Literal[Output.TABLE, Output.JSON, Output.YAML, Output.NAME],
    typer.Option("-o", "--output", help="table, json, yaml or name."),
]
ListFormat = Annotated[
    Literal[Output.TABLE, Output.WIDE, Output.JSON, Output.YAML, Output.NAME],
    typer.Option("-o", "--output", help="table, wide, json, yaml or name."),
]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Jobs of all namespaces.")]
Watch = Annotated[bool, typer.Option("-w", "--watch", help="Keep it up to date until Ctrl-C.")]
Yes = Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")]


Connect = Callable[[], Client]
"""Makes the client of a command; raises ClientError if there is no cluster."""


def with_cluster(function: Callable[Concatenate[Client, P], None]) -> Callable[..., None]:
    """A command from a function of a Client: it has the options of kubectl, and its errors are one line each."""
    return _command(function, at_once=True)


def with_cluster_later(function: Callable[Concatenate[Connect, P], None]) -> Callable[..., None]:
    """The same from a function that connects when its arguments are checked, or only if an option asks for it."""
    return _command(function, at_once=False)


def _command(function: Callable[..., None], *, at_once: bool) -> Callable[..., None]:
    @wraps(function)
    def command(
        *, namespace: str | None = None, context: str | None = None, kubeconfig: Path | None = None, **given: Any
    ) -> None:
        connect = partial(Client, namespace=namespace, context=context, kubeconfig=kubeconfig)
        try:
            function(connect() if at_once else connect, **given)
        except ClientError as error:
            end(error)
        except KeyboardInterrupt:
            raise typer.Exit(130) from None

    hints = inspect.get_annotations(function, eval_str=True)
    _, *own = inspect.signature(function, eval_str=True).parameters.values()
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
        for name, annotation in CLUSTER_OPTIONS.items()
    ]
    parameters = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own]
    signature: Any = command
    signature.__signature__ = inspect.Signature([*parameters, *shared])
    command.__annotations__ = {**{p.name: hints[p.name] for p in own}, **CLUSTER_OPTIONS, "return": None}
    return command


def end(error: ClientError) -> NoReturn:
    """Print the error in one line, and what to do in the next, and exit with its code."""
    typer.echo(f"error: {error.message}", err=True)
    if error.remedy:
        typer.echo(f"  try: {error.remedy}", err=True)
    raise typer.Exit(int(exit_code(error))) from None


def stop(message: str, code: Exit, remedy: str = "") -> NoReturn:
    """End with an error of the command itself."""
    typer.echo(f"error: {message}", err=True)
    if remedy:
        typer.echo(f"  try: {remedy}", err=True)
    raise typer.Exit(int(code))
