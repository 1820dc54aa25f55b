"""Looks at one job again and again: what `status -w` and `apply --watch` show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from distill_api.constants import TERMINAL_PHASES
from distill_cli import output
from distill_cli.live.pauses import pauses
from distill_cli.views.job.curves import Curves, curves
from distill_cli.views.job.status import StatusView, status_view
from distill_client import Client, Forbidden, Job
from distill_client.apiserver.kinds import Object
from distill_client.apiserver.patience import Patience
from distill_client.errors import ClientError

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESH_SECONDS = 2.0
LOG_LINES = 5000
"""Of rank 0's log, for the curves."""


class Belongings(NamedTuple):
    """What belongs to a job, as far as the user may read it."""

    pods: list[Object]
    events: list[Object]
    claims: list[Object]


def belongings(client: Client, job: Job) -> Belongings:
    """Read them. A right that is missing leaves out what it is for, and nothing else."""
    return Belongings(
        _if_allowed(lambda: client.pods(job.name)),
        _if_allowed(lambda: client.events(job.name)),
        _if_allowed(lambda: client.claims(job)),
    )


def _if_allowed(read: Callable[[], list[Object]]) -> list[Object]:
    try:
        return read()
    except Forbidden:
        return []


class Look:
    """One job with its pods, events and curves; what the user may not read is left out."""

    def __init__(self, client: Client, name: str, *, curves: bool = True) -> None:
        self.client, self.name = client, name
        self._curves, self._read_epoch, self._want_curves = Curves(), -1, curves

    def view(self) -> StatusView:
        """Read it all once. Raises ClientError if the job cannot be read."""
        job = self.client.get(self.name)
        found, now = belongings(self.client, job), datetime.now(UTC)
        return status_view(job, found.pods, found.events, self._of(job, found.pods), now, claims=found.claims)

    def screen(self, attempts: int) -> RenderableType:
        """The view, drawn."""
        from distill_cli.screens.status import status

        return status(self.view(), attempts)

    def _of(self, job: Job, pods: list[Object]) -> Curves:
        """The curves; the log is read again only when an epoch has been finished."""
        epoch = job.status.progress.epoch if job.status.progress else 0
        if not self._want_curves or not pods or epoch == self._read_epoch:
            return self._curves
        try:
            lines = self.client.logs(self.name, 0, tail=LOG_LINES)
            self._curves, self._read_epoch = curves(line.text for line in lines), epoch
        except Forbidden:
            self._want_curves = False
        except ClientError:
            pass  # the pod is starting or gone; the next look asks again
        return self._curves


def watched(look: Look, attempts: int) -> StatusView:
    """Show the job until it has ended, and return the last view.

    In a terminal the screen is redrawn; else a line is printed whenever something changes.
    """
    with pauses(REFRESH_SECONDS) as pause:
        views = _views(look, pause)
        return _drawn(views, attempts) if output.console().is_terminal else _lines(views)


def _drawn(views: Iterator[StatusView], attempts: int) -> StatusView:
    from rich.live import Live

    from distill_cli.screens.status import status

    console, view = output.console(), next(views)
    try:
        with Live(status(view, attempts), console=console, auto_refresh=False, screen=True) as live:
            for view in views:
                live.update(status(view, attempts), refresh=True)
    finally:
        console.print(status(view, attempts))  # what was on the screen stays after it
    return view


def _lines(views: Iterator[StatusView]) -> StatusView:
    last = ""
    for view in views:
        progress = view.progress
        where = f"  epoch {progress.epoch}  step {progress.step}  ETA {progress.eta}" if progress else ""
        line = f"{view.phase}{where}  {view.headline}"
        if line != last:
            print(line, flush=True)
        last = line
    return view


def _views(look: Look, pause: Callable[[], None]) -> Iterator[StatusView]:
    """The job again and again until it has ended. An API server that is away for a while ends nothing."""
    patience = Patience()
    while True:
        view = patience.read(look.view)
        yield view
        if view.phase in TERMINAL_PHASES:
            return
        pause()
