"""Checkpointers for the tests of saving, finding, killing and fencing."""

from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from distill_api.spec.rules.corrections import Change
from distill_trainer.checkpoint.checkpointer import Checkpointer


class Events:
    """Counts what the checkpointer tells."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.failures = 0
        self.fell_back: list[str] = []
        self.changes: dict[str, tuple[str, str]] = {}
        self.spec_changes: list[Change] = []

    def checkpoint_committed(self, step: int, at: datetime, seconds: float) -> None:
        assert at.tzinfo is not None
        assert seconds >= 0
        self.committed.append(step)

    def checkpoint_stalled(self, seconds: float) -> None:
        assert seconds >= 0

    def checkpoint_failed(self) -> None:
        self.failures += 1

    def checkpoint_fell_back(self, why: str) -> None:
        self.fell_back.append(why)

    def versions_changed(self, changes: Mapping[str, tuple[str, str]]) -> None:
        self.changes = dict(changes)

    def spec_changed(self, changes: Iterable[Change]) -> None:
        self.spec_changes = list(changes)


class Opener:
    """Opens checkpointers on one directory and closes them after the test."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.opened: list[Checkpointer] = []

    def __call__(self, *, attempt: int = 1, uid: str = "uid", keep: int = 3, writer: bool = True,
                 definition: dict[str, Any] | None = None, committed_before: int = 0) -> Checkpointer:  # fmt: skip
        checkpointer = Checkpointer(
            self.directory, uid=uid, attempt=attempt, keep=keep, is_writer=writer, events=Events(),
            definition=definition, committed_before=committed_before,
        )  # fmt: skip
        self.opened.append(checkpointer)
        return checkpointer

    def close(self) -> None:
        """Close all that were opened."""
        for checkpointer in self.opened:
            checkpointer.close()


def save(checkpointer: Checkpointer, *steps: int) -> None:
    """Commit a small state at each step."""
    for step in steps:
        checkpointer.snapshot({"step": step, "weight": torch.full((5000,), float(step))}, step)
        checkpointer.wait()


def events(checkpointer: Checkpointer) -> Events:
    """What a checkpointer of these tests has told."""
    found = checkpointer._events
    assert isinstance(found, Events)
    return found
