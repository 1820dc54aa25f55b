"""The progress bar of `distill run` in a terminal: rank 0's own status below the lines that the trainer prints."""

from __future__ import annotations

import re
import threading
import urllib.request
from contextlib import suppress
from typing import TYPE_CHECKING

from pydantic import ValidationError

from distill_api.pod.report import TrainerStatus
from distill_cli.views.run import bar_text, fraction
from distill_local.trainer_process import TrainerEnd, TrainerProcess

if TYPE_CHECKING:
    from rich.console import Console

_PORT = re.compile(r"serving metrics and status on port (\d+)")
_BAR_WIDTH = 24
_POLL_SECONDS = 0.5


class StatusReader:
    """Reads rank 0's status. Ranks say in the log at which port they answer; `take` gets every line of it."""

    def __init__(self, uid: str) -> None:
        self._uid = uid
        self._ports: list[int] = []

    def take(self, line: str) -> None:
        """A line of the log."""
        if match := _PORT.search(line):
            self._ports.append(int(match[1]))

    def read(self) -> TrainerStatus | None:
        """The status of rank 0 of this run; None while it does not answer."""
        for port in list(self._ports):
            with suppress(OSError, ValidationError):
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/status", timeout=1) as answer:
                    status = TrainerStatus.model_validate_json(answer.read(65536))
                if status.rank == 0 and status.uid == self._uid:
                    return status
        return None


def run_with_bar(trainer: TrainerProcess, console: Console) -> TrainerEnd:
    """Wait for a trainer that is piped, and show its lines with a bar below them."""
    from rich.progress import BarColumn, Progress, TextColumn

    reader, losses, done = StatusReader(trainer.run.uid), [""], threading.Event()
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=_BAR_WIDTH), TextColumn("{task.fields[more]}"))
    with Progress(*columns, console=console, transient=True, refresh_per_second=2) as progress:
        task = progress.add_task("starting", total=1.0, more="")

        def poll() -> None:
            while not done.wait(_POLL_SECONDS):
                status = reader.read()
                if status is not None:
                    name, more = bar_text(status, losses[0], console.width - _BAR_WIDTH - 2)
                    progress.update(task, completed=fraction(status.progress), description=name, more=more)

        thread = threading.Thread(target=poll, daemon=True)
        thread.start()
        for line in trainer.lines():
            reader.take(line)
            losses[0] = line if " epoch " in f" {line}" else losses[0]
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        done.set()
        thread.join(timeout=2)
    return trainer.wait()
