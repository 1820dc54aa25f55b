"""Outputs that may fail: a training that is done stays done, whatever cannot be drawn, exported or compared."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from distill_api.errors import Stopped, TrainerError

log = logging.getLogger(__name__)

T = TypeVar("T")
_LONGEST = 300


class OutputProblem(Exception):
    """Why an output cannot be made, in one line that says what to do."""


def try_output(name: str, make: Callable[[], T]) -> tuple[T | None, str | None]:
    """What `make` returns, and why it returned nothing: one line, which is logged as well. Raises Stopped only."""
    try:
        return make(), None
    except Stopped:
        raise
    except Exception as error:  # noqa: BLE001  whatever is wrong with an extra, the weights are there
        problem = one_line(error)
        log.warning("%s: not written: %s", name, problem)
        return None, problem


def one_line(error: BaseException) -> str:
    """An error as one line for people: its type is said where the text alone was not written for them."""
    if isinstance(error, TrainerError | OutputProblem):
        return str(error)
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:_LONGEST]
