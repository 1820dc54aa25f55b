"""Whether the process should be restarted. Pure; the time is an argument.

An API server that is away is no reason: a restart would not bring it back. A pass that hangs is one, and so are passes
that all fail with errors of the operator's own. An event loop that is stuck does not answer the probe at all.
"""

import aiohttp

from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import NotLeadingError

STUCK_SECONDS = 180.0
"""A pass makes a few requests of at most 20 s each; one that takes longer than this is stuck."""
FAILING_SECONDS = 600.0
"""How long passes may fail with the operator's own errors while none succeeds. A failed pass is retried within 60 s."""

NOT_ITS_OWN = (ApiError, NotLeadingError, aiohttp.ClientError, OSError)  # TimeoutError is an OSError
"""Errors of requests, and of the leadership."""


class Health:
    """Remembers since when every pass has failed."""

    def __init__(self) -> None:
        self._first: float | None = None
        self._last = 0.0
        self._error = ""

    def ended(self, error: BaseException | None, now: float) -> None:
        """A pass ended, with this error or without."""
        if error is None:
            self._first = None
        elif not isinstance(error, NOT_ITS_OWN):
            self._first = now if self._first is None else self._first
            self._last, self._error = now, f"{type(error).__name__}: {error}"

    def idle(self) -> None:
        """This process makes no passes for now, because another one leads."""
        self._first = None

    def problem(self, oldest_pass: float) -> str | None:
        """Why the process should be restarted; None if it is well. `oldest_pass`: seconds since its start."""
        if oldest_pass > STUCK_SECONDS:
            return f"a pass has been running for {oldest_pass:.0f} s"
        if self._first is not None and self._last - self._first > FAILING_SECONDS:
            return f"all passes have failed for {self._last - self._first:.0f} s, the last with {self._error}"
        return None
