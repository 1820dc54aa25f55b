"""The operator's clock: the API server's, by the Date of its answers, so that the two never disagree.

Deletion times and grace periods are the API server's. With a clock of its own that is wrong, the operator would take
pods for lost that still have time, and end attempts early or never.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class ServerClock:
    """Tells the API server's time between its answers. Until the first one it tells this machine's."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._offset: float | None = None
        """Unix time at the monotonic clock's zero."""

    def saw(self, date: str | None, sent: float) -> None:
        """Correct the clock by the Date header of an answer to a request that was sent at monotonic time `sent`.

        The header has whole seconds, so the API server's time was at least this second when the answer arrived, and
        less than the next one when the request was sent.
        """
        try:
            second = parsedate_to_datetime(date or "").timestamp()
        except ValueError:
            return
        least, most = second - self._monotonic(), second + 1 - sent
        self._offset = least if self._offset is None else min(max(self._offset, least), most)

    def now(self) -> datetime:
        """The time in whole seconds, as Kubernetes writes it."""
        seconds = time.time() if self._offset is None else self._offset + self._monotonic()
        return datetime.fromtimestamp(seconds, UTC).replace(microsecond=0)
