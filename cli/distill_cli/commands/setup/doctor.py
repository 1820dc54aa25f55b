"""`distill doctor`: what is missing for jobs to run here."""

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import typer

from distill_api.constants import GROUP, KIND, PLURAL
from distill_cli import output
from distill_cli.cluster import Output, OutputFormat, with_cluster
from distill_cli.exits import Exit
from distill_client import Client, ClientError, Forbidden, NotFound, NotInstalled
from distill_client.apiserver.kinds import path
from distill_client.installation import operators

if TYPE_CHECKING:
    from distill_cli.views.doctor import Facts

T = TypeVar("T")

RIGHTS = {
    "list DistillJobs": (GROUP, PLURAL, "", "list"),
    "create DistillJobs": (GROUP, PLURAL, "", "create"),
    "change DistillJobs": (GROUP, PLURAL, "", "patch"),
    "delete DistillJobs": (GROUP, PLURAL, "", "delete"),
    "list pods (status, top)": ("", "pods", "", "list"),
    "read logs (logs, curves)": ("", "pods", "log", "get"),
    "list events (events, why)": ("", "events", "", "list"),
    "exec in pods (download, open)": ("", "pods", "exec", "create"),
    "forward ports of pods (open, why)": ("", "pods", "portforward", "create"),
    "create pods (download of ended jobs)": ("", "pods", "", "create"),
}
"""What distill needs, by what for: group, resource, subresource, verb."""


@with_cluster
def command(client: Client, output_format: OutputFormat = Output.TABLE) -> None:
    """Check cluster, CRD, operator, your rights, storage, GPUs, Prometheus and policies: ok, warn or fail, each with
    its mend. Exits with code 1 if a check fails.
    """
    from distill_cli.views.doctor import Level, checks

    found = checks(_facts(client))
    if output.is_data(output_format):
        output.data(found, output_format)
    else:
        from distill_cli.screens.doctor import doctor

        output.console().print(doctor(found, client.connection.context, client.connection.server))
    if any(check.level == Level.FAIL for check in found):
        raise typer.Exit(int(Exit.FAILED))


def _facts(client: Client) -> "Facts":
    from distill_api.generate.crd import schema_hash
    from distill_cli.commands.setup.version import own_version
    from distill_cli.views.doctor import Facts

    connection = client.connection
    version = connection.request("GET", "/version")
    listed = connection.request("GET", "/apis").get("groups") or ()
    groups = frozenset(str(group["name"]) for group in listed)
    namespace = _read(lambda: connection.request("GET", path("Namespace", None, client.namespace)))
    monitored = "monitoring.coreos.com" in groups
    return Facts(
        namespace=client.namespace,
        version=version,
        namespace_object=namespace,
        namespace_exists=_exists(client),
        crd=_read(lambda: connection.request("GET", path("CustomResourceDefinition", None, f"{PLURAL}.{GROUP}"))),
        crd_installed=_installed(client),
        schema_hash=schema_hash(),
        own_version=own_version(),
        operators=_read(lambda: operators(client)),
        rights={what: _may(client, *right) for what, right in RIGHTS.items()},
        storage_classes=_read(lambda: client.objects("StorageClass", None)),
        claims=_read(lambda: client.objects("PersistentVolumeClaim", client.namespace)),
        nodes=_read(lambda: client.objects("Node", None)),
        gpu_pods=_read(lambda: client.objects("Pod", None)),
        groups=groups,
        pod_monitors=_read(lambda: client.objects("PodMonitor", None)) if monitored else None,
        quotas=_read(lambda: client.objects("ResourceQuota", client.namespace)),
    )


def _read(ask: Callable[[], T]) -> T | None:
    """The answer; None if it may not be read, or is not there."""
    try:
        return ask()
    except (Forbidden, NotFound, NotInstalled):
        return None


def _exists(client: Client) -> bool | None:
    try:
        client.connection.request("GET", path("Namespace", None, client.namespace))
    except NotFound:
        return False
    except Forbidden:
        return None
    return True


def _installed(client: Client) -> bool:
    try:
        client.objects(KIND, client.namespace)
    except NotInstalled:
        return False
    except ClientError:
        return True  # it is served, though not for this user
    return True


def _may(client: Client, group: str, resource: str, subresource: str, verb: str) -> bool:
    attributes = {"namespace": client.namespace, "group": group, "resource": resource, "verb": verb}
    if subresource:
        attributes["subresource"] = subresource
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    answer = client.connection.request("POST", path("SelfSubjectAccessReview", None), body=body)
    return bool((answer.get("status") or {}).get("allowed"))
