"""A training as a value: everything that its result depends on, and a digest of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal

DIGEST = 12
"""Letters of a digest."""


def _digest(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:DIGEST]


@dataclass(frozen=True)
class Data:
    """A generated data set."""

    look: str
    """Name in data.datasets.LOOKS."""
    task: str
    train: int
    """Training images."""
    val: int
    """Validation images."""
    imgsz: int
    seed: int

    def wire(self) -> dict[str, Any]:
        """Its fields as JSON values."""
        return dict(vars(self))

    @property
    def digest(self) -> str:
        """Names its folder."""
        return _digest(self.wire())


@dataclass(frozen=True)
class Run:
    """One training. Its weights may be the student or the teacher of another one."""

    arm: str
    """What the run is called in tables; not part of the digest, so that the same training is never run twice."""
    seed: int
    data: Data
    student: str | Run
    """An architecture, or the run whose last weights the student starts from."""
    teacher: Run | None = None
    trainer: Literal["ours", "ultralytics"] = "ours"
    training: Mapping[str, Any] = field(default_factory=dict)
    """Ultralytics' training arguments, for both trainers, without the seed."""
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a DistillJob's spec that differ from the defaults; ours only."""
    switches: tuple[str, ...] = ()
    """Names in trainers.switches.SWITCHES; ours only."""

    def wire(self) -> dict[str, Any]:
        """Everything that the result depends on, as JSON values."""
        return {
            "seed": self.seed,
            "data": self.data.wire(),
            "student": self.student if isinstance(self.student, str) else self.student.wire(),
            "teacher": self.teacher.wire() if self.teacher else None,
            "trainer": self.trainer,
            "training": dict(self.training),
            "spec": dict(self.spec),
            "switches": list(self.switches),
        }

    @property
    def digest(self) -> str:
        """Names its folder, its weights and its row."""
        return _digest(self.wire())

    @property
    def epochs(self) -> int:
        """Planned epochs."""
        return int(self.training["epochs"])

    def with_epochs(self, epochs: int) -> Run:
        """The same run with another number of epochs."""
        return replace(self, training=dict(self.training) | {"epochs": epochs})

    def needs(self) -> list[Run]:
        """Runs whose weights it needs, directly."""
        return [other for other in (self.student, self.teacher) if isinstance(other, Run)]


def in_order(runs: Iterable[Run]) -> list[Run]:
    """The runs and all that they need, each once, what is needed first."""
    found: dict[str, Run] = {}

    def visit(run: Run) -> Iterator[Run]:
        for other in run.needs():
            yield from visit(other)
        yield run

    for run in runs:
        for one in visit(run):
            found.setdefault(one.digest, one)
    return list(found.values())


def ready(pending: Iterable[Run], done: Set[str], taken: Set[str]) -> Run | None:
    """The first pending run that is neither done nor taken and whose needs are done; None if there is none now."""
    for run in pending:
        if run.digest in done | taken:
            continue
        if all(other.digest in done for other in run.needs()):
            return run
    return None
