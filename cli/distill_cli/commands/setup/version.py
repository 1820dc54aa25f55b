"""`distill version`: which versions there are."""

from importlib.metadata import PackageNotFoundError, version
from typing import Annotated

import typer

from distill_api.constants import GROUP, PLURAL, SCHEMA_HASH, VERSION
from distill_cli import output
from distill_cli.cluster import Connect, Output, OutputFormat, with_cluster_later
from distill_client import Client, Forbidden, NotFound
from distill_client.apiserver.kinds import path


@with_cluster_later
def command(
    connect: Connect,
    cluster: Annotated[bool, typer.Option("--cluster", help="Also ask the cluster for its own.")] = False,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """Print the versions of distill and of the API that it knows; with --cluster those of the cluster, too."""
    found = {"distill": own_version(), "api": f"{GROUP}/{VERSION}"}
    if cluster:
        found |= _of_cluster(connect())
    if output.is_data(output_format):
        output.data(found, output_format)
        return
    for name, value in found.items():
        typer.echo(f"{name}: {value}")


def own_version() -> str:
    """Of the installed package."""
    try:
        return version("distill-operator")
    except PackageNotFoundError:
        return "unknown (not installed as a package)"


def _of_cluster(client: Client) -> dict[str, str]:
    from distill_api.generate.crd import schema_hash
    from distill_client.installation import operator_version, operators

    found = {"kubernetes": str(client.connection.request("GET", "/version").get("gitVersion"))}
    try:
        crd = client.connection.request("GET", path("CustomResourceDefinition", None, f"{PLURAL}.{GROUP}"))
        same = (crd["metadata"].get("annotations") or {}).get(SCHEMA_HASH) == schema_hash()
        found["crd"] = "the same as distill's" if same else "of another version than distill"
    except NotFound:
        found["crd"] = "not installed"
    except Forbidden:
        found["crd"] = "may not be read"
    try:
        pods = operators(client)
        found["operator"] = ", ".join(sorted({operator_version(pod) for pod in pods})) or "not found"
    except Forbidden:
        found["operator"] = "may not be read"
    return found
