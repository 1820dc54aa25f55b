"""Optional outputs: a failed plot, export or comparison must not fail a run whose training is done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from distill_api.errors import Stopped, TrainerError

log = logging.getLogger(__name__)

T = TypeVar("T")
_MAX_LENGTH = 300


class OutputProblem(Exception):
    """Why an output cannot be written, in one line that says what to do."""


def try_output(name: str, write: Callable[[], T]) -> tuple[T | None, str | None]:
    """Call `write` and return (its result, None), or (None, the error in one line), which is also logged.

    Raises only Stopped.
    """
    try:
        return write(), None
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001  no error of an optional output may fail the run
        problem = one_line(error)
        log.warning("%s: not written: %s", name, problem)
        return None, problem


def one_line(error: BaseException) -> str:
    """An error in one line, with its type unless its message was written for users."""
    if isinstance(error, TrainerError | OutputProblem):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_MAX_LENGTH]
