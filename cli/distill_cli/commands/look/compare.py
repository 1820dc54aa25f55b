"""`distill compare`: jobs side by side, and a picture."""

from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from distill_api.constants import JobFile
from distill_cli import output
from distill_cli.cluster import JobNames, Output, OutputFormat, with_cluster
from distill_cli.views.job.curves import Curves
from distill_client import Client, ClientError, Job


@with_cluster
def command(
    client: Client,
    jobs: JobNames,
    picture: Annotated[
        Path | None, typer.Option(help="Also draw the curves of mAP and distillation loss into this SVG file.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Read each job's results.csv from its claim: whole curves, also of old jobs.")
    ] = False,
    output_format: OutputFormat = Output.TABLE,
) -> None:
    """Compare jobs: settings that differ, scores, goodput, cost, and curves as far as rank 0's logs still exist."""
    from distill_cli.views.compare import compare_view

    found = [client.get(name) for name in jobs]
    view = compare_view(found, {job.name: _of_claim(client, job) if full else _of_log(client, job) for job in found})
    if picture is not None:
        from distill_cli.screens.picture import svg

        picture.write_text(svg(view, datetime.now(UTC)), encoding="utf-8")
        typer.echo(f"wrote {picture}", err=True)
    if output.is_data(output_format):
        output.data(view, output_format)
        return
    from distill_cli.screens import tables

    output.console().print(tables.compared(view))


def _of_claim(client: Client, job: Job) -> Curves:
    from distill_cli.views.job.curves import curves_of_results
    from distill_client.pods.files import files_of

    with TemporaryDirectory() as folder, files_of(client, job) as files:
        target = Path(folder) / "results.csv"
        files.fetch(JobFile.RESULTS, target)
        return curves_of_results(target.read_text(encoding="utf-8"))


def _of_log(client: Client, job: Job) -> Curves:
    from distill_cli.live.look import LOG_LINES
    from distill_cli.views.job.curves import curves

    try:
        return curves(line.text for line in client.logs(job.name, 0, tail=LOG_LINES))
    except ClientError:
        return Curves()  # its pods are gone, or may not be read
