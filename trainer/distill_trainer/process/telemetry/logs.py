"""The log of a training container. Rank 0 says how it goes; the other ranks, and the launcher, what goes wrong."""

import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from distill_api.logs import FORMAT_VARIABLE, JsonFormatter
from distill_trainer.process.telemetry.console import CLEAR_LINE


@dataclass
class LogFacts:
    """What every line of a process is about. The same object is filled in as more becomes known."""

    job: str | None = None
    attempt: int | None = None
    rank: int | None = None
    """None in the launcher."""
    position: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
    """The gang's execution and the steps of the job that are done, now. Takes no lock: signal handlers log, too."""

    def of(self, record: logging.LogRecord) -> Mapping[str, object]:
        """Keys of a line as JSON; `extra={"facts": …}` of a record adds to them."""
        execution, step = self.position()
        known = {"job": self.job, "attempt": self.attempt, "execution": execution, "rank": self.rank, "step": step}
        return {**known, **getattr(record, "facts", {})}


class _TextFormatter(logging.Formatter):
    """One line for people: time, job, attempt, step, rank or launcher, level, logger, message."""

    def __init__(self, facts: LogFacts) -> None:
        clear_bar = CLEAR_LINE if sys.stderr.isatty() else ""
        super().__init__(f"{clear_bar}%(asctime)s %(about)s %(levelname)s %(name)s: %(message)s")
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        _, step = self._facts.position()
        said = {"attempt": self._facts.attempt, "step": step, "rank": self._facts.rank}
        words = [f"{name} {value}" for name, value in said.items() if value is not None]
        record.about = " ".join([*words, *(["launcher"] if self._facts.rank is None else [])])
        return super().format(record)


def as_json() -> bool:
    """Whether lines are JSON, as the environment asks."""
    return os.environ.get(FORMAT_VARIABLE, "text").lower() == "json"


def configure(facts: LogFacts) -> None:
    """Log to standard error, in place of any earlier configuration."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(facts.of) if as_json() else _TextFormatter(facts))
    quiet = facts.rank not in (None, 0)
    logging.basicConfig(level=logging.WARNING if quiet else logging.INFO, handlers=[handler], force=True)
