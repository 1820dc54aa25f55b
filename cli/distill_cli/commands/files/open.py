"""`distill open`: a job's report, its curves in TensorBoard, or its board in Grafana."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import typer

from distill_api.constants import JobFile
from distill_api.constants import Path as PodPath
from distill_api.metrics import JOB_BOARD, JOB_LABEL
from distill_cli.cluster import Connect, JobName, stop, with_cluster_later
from distill_cli.commands.files.download import Image
from distill_cli.exits import Exit
from distill_cli.live.signals import handled
from distill_client import Client, ClientError, Forbidden, Job, NotFound, TimedOut
from distill_client.apiserver.kinds import path
from distill_client.pods.files import Files, files_of
from distill_client.pods.forward import LOOPBACK, Forward, forwarded
from distill_client.pods.reader import reader, running_rank_0, runs
from distill_client.pods.service import endpoint, grafana, service

_REPORT_PORT: Final = 8000
"""In the reader pod, on its loopback: nothing but a port-forward reaches it."""
_ANSWER_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 5.0
_REFRESH_SECONDS: Final = 10.0
_NO_REPORT: Final = "it is made at the end of the training; --tensorboard has the curves until then"
Show = Callable[[str], None]


@with_cluster_later
def command(
    connect: Connect,
    job: JobName,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Its curves, in TensorBoard on this machine; also while it trains.")
    ] = False,
    dashboard: Annotated[bool, typer.Option("--dashboard", help="Its board, in the cluster's Grafana.")] = False,
    grafana_service: Annotated[
        str | None,
        typer.Option("--grafana", metavar="NAMESPACE/SERVICE", help="Grafana's Service; default: found by its label."),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; default: a free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the browser; else only print the address.")] = True,
    image: Image = None,
) -> None:
    """Open a job's report in the browser; with --tensorboard its curves, with --dashboard its board in Grafana.

    Report and board come through a port-forward, which Ctrl-C ends. The report is served by a pod of its own, which has
    the claim read-only and is deleted; TensorBoard runs here, where it must be installed, and is kept up to date.
    """
    if tensorboard and dashboard:
        stop("--tensorboard and --dashboard exclude each other", Exit.USAGE)

    def show(address: str) -> None:
        typer.echo(f"{address}\nCtrl-C ends this.")
        if browser and not webbrowser.open(address):
            typer.echo("no browser was found; open the address above", err=True)

    client = connect()
    found = client.get(job)
    with _until_interrupted():
        if dashboard:
            _dashboard(client, found, grafana_service, port, show)
        elif tensorboard:
            _tensorboard(client, found, image, port, show)
        else:
            _report(client, found, image, port, show)


def _report(client: Client, job: Job, image: str | None, port: int, show: Show) -> None:
    if running_rank_0(client, job) is not None:
        raise NotFound(f"DistillJob {job.name} has no report yet", _NO_REPORT)
    folder = f"{PodPath.CHECKPOINTS}/{job.name}"
    program = ("-m", "http.server", str(_REPORT_PORT), "--bind", LOOPBACK, "--directory", folder)
    with (
        reader(client, job, program, image=image) as pod,
        forwarded(client.connection, job.namespace, pod, _REPORT_PORT, local=port) as forward,
    ):
        address = f"{forward.url}/{JobFile.REPORT}"
        if _status(address, forward) == 404:
            raise NotFound(f"DistillJob {job.name} has no report", _NO_REPORT)
        show(address)
        _stay(client, job.namespace, pod)


def _dashboard(client: Client, job: Job, named: str | None, port: int, show: Show) -> None:
    namespace, slash, name = (named or "").partition("/")
    if named and not (namespace and slash and name):
        stop(f"--grafana {named} is not NAMESPACE/SERVICE", Exit.USAGE)
    chosen = endpoint(client, service(client, namespace, name) if named else grafana(client))
    with forwarded(client.connection, *chosen, local=port) as forward:
        _status(f"{forward.url}/api/health", forward, patience=5)
        variables = {"var-namespace": job.namespace, f"var-{JOB_LABEL}": job.name}
        show(f"{forward.url}/d/{JOB_BOARD}?{urlencode(variables)}")
        _stay(client, chosen.namespace, chosen.pod)


def _tensorboard(client: Client, job: Job, image: str | None, port: int, show: Show) -> None:
    installed = shutil.which("tensorboard")
    program = (
        [sys.executable, "-m", "tensorboard.main"] if find_spec("tensorboard") else [installed] if installed else []
    )
    if not program:
        raise ClientError("TensorBoard is not installed here", "pip install tensorboard")
    with files_of(client, job, image=image) as files, TemporaryDirectory(prefix=f"distill-{job.name}-") as folder:
        sizes: dict[str, int] = {}
        if not _refresh(files, Path(folder, job.name), sizes):
            raise NotFound(f"DistillJob {job.name} has no curves yet", "they come with its first epoch")
        port = port or _free_port()
        arguments = ["--logdir", folder, "--host", LOOPBACK, "--port", str(port), "--reload_interval", "5"]
        process = subprocess.Popen([*program, *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _status(f"http://{LOOPBACK}:{port}/", None)
            show(f"http://{LOOPBACK}:{port}/")
            _keep_up_to_date(process, lambda: _refresh(files, Path(folder, job.name), sizes))
        finally:
            process.terminate()
            process.wait()


def _keep_up_to_date(process: subprocess.Popen[bytes], refresh: Callable[[], object]) -> None:
    """Until TensorBoard ends. When the pod of the files has ended, the curves stay as they are."""
    while process.poll() is None:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_REFRESH_SECONDS)
            return
        try:
            refresh()
        except ClientError as error:
            typer.echo(f"the curves stay as they are now: {error.message}", err=True)
            process.wait()


def _refresh(files: Files, folder: Path, sizes: dict[str, int]) -> bool:
    """Copy the event files that are new or have grown to `folder`, whose name is the run's; whether there are any."""
    events = [file for file in files.list() if file.name.startswith("tensorboard/")]
    for file in events:
        if sizes.get(file.name) != file.size:
            files.fetch(file.name, folder / Path(file.name).name)
            sizes[file.name] = file.size
    return bool(events)


def _status(address: str, forward: Forward | None, patience: float = _ANSWER_SECONDS) -> int:
    """The HTTP status there, as soon as something answers. Raises TimedOut, or what is wrong with the port-forward."""
    deadline, opener = time.monotonic() + patience, build_opener(ProxyHandler({}))  # no proxy for loopback
    while True:
        try:
            with opener.open(address, timeout=_ANSWER_SECONDS) as answer:
                return int(answer.status)
        except HTTPError as error:
            return error.code
        except (OSError, HTTPException) as error:
            if forward is not None and isinstance(forward.problem, Forbidden | NotFound):
                raise forward.problem from None
            if time.monotonic() > deadline:
                why = forward.problem if forward is not None and forward.problem else error
                raise TimedOut(f"nothing answers at {address}: {why}") from None
        time.sleep(0.3)


def _stay(client: Client, namespace: str, pod: str) -> None:
    """Until Ctrl-C. Raises NotFound when the pod has ended."""
    while True:
        time.sleep(_LOOK_SECONDS)
        if not runs(client.connection.request("GET", path("Pod", namespace, pod))):
            raise NotFound(f"pod {pod} has ended", "the same command starts again")


def _free_port() -> int:
    with socket.create_server((LOOPBACK, 0)) as listener:
        return int(listener.getsockname()[1])


@contextmanager
def _until_interrupted() -> Iterator[None]:
    """Ctrl-C, SIGTERM and a closed terminal end the block, which deletes what it has made; that is no failure."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt), handled(interrupt, signal.SIGTERM, signal.SIGHUP):
        yield
