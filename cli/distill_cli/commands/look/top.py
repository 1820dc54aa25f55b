"""`distill top`: who uses which GPUs, and how well."""

from distill_api.constants import TERMINAL_PHASES, Component, Label
from distill_cli import output
from distill_cli.cluster import AllNamespaces, Output, OutputFormat, with_cluster
from distill_client import Client, Forbidden, Job
from distill_client.apiserver.kinds import Object


@with_cluster
def command(client: Client, all_namespaces: AllNamespaces = False, output_format: OutputFormat = Output.TABLE) -> None:
    """Show GPUs, images/s and goodput of each job that has not ended, and which nodes the GPUs are on."""
    from distill_cli.views.top import top_view

    jobs = [job for job in client.list(all_namespaces=all_namespaces) if not _over(job)]
    selector = f"{Label.COMPONENT}={Component.TRAINER},{Label.JOB}"
    pods = client.objects("Pod", None if all_namespaces else client.namespace, labelSelector=selector)
    view = top_view(jobs, pods, _nodes(client))
    if output.is_data(output_format):
        output.data(view, output_format)
        return
    from distill_cli.screens import tables

    output.console().print(tables.top(view, namespaces=all_namespaces))


def _over(job: Job) -> bool:
    return job.status.over if job.readable else job.phase in TERMINAL_PHASES


def _nodes(client: Client) -> list[Object] | None:
    try:
        return client.objects("Node", None)
    except Forbidden:
        return None
