"""Bears with an API server that is away for a while, as during its upgrade."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final, TypeVar

from distill_client.errors import Unreachable

PATIENCE_SECONDS: Final = 300.0
RETRY_SECONDS: Final = 2.0

T = TypeVar("T")


class Patience:
    """Of one who asks again and again: the first question must be answered, later ones within PATIENCE_SECONDS."""

    def __init__(self) -> None:
        self._answered = False

    def read(self, ask: Callable[[], T], until: float = math.inf) -> T:
        """The answer. Raises Unreachable if there was none for too long, or up to `until`, by time.monotonic."""
        deadline = min(until, time.monotonic() + PATIENCE_SECONDS) if self._answered else -math.inf
        while True:
            try:
                answer = ask()
            except Unreachable:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(RETRY_SECONDS)
            else:
                self._answered = True
                return answer
