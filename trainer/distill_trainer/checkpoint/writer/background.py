"""The client of the writer process: sends requests, reads responses, and restarts the process if it dies."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason
from distill_trainer.checkpoint.store.fence import Fence, superseded
from distill_trainer.checkpoint.store.storage import storage_error

log = logging.getLogger(__name__)

Request = dict[str, Any]
Response = dict[str, Any]

_TRIES: Final = 3
"""How many times in a row the process may die before the pending requests fail."""


@dataclass(frozen=True)
class _Pending:
    request: Request
    since: float
    """Time of the request, by time.monotonic."""


class BackgroundWriter:
    """Requests are carried out in order. The shared memory that a request names as its buffer must not change before
    `wait` for that buffer returns.
    """

    def __init__(self, buffers: Sequence[int], fence: Fence, on_committed: Callable[[Response], None]) -> None:
        """`buffers` are the descriptors of shared memory; `fence` is the rank's; `on_committed` is called in another
        thread.
        """
        self._buffers = tuple(buffers)
        self._fence = fence
        self._on_committed = on_committed
        self._changed = threading.Condition()
        self._pending: deque[_Pending] = deque()
        self._deaths = 0
        self._error: TrainerError | None = None
        self._closed = False
        self._process = self._start()

    @property
    def busy(self) -> bool:
        """Whether a request is pending."""
        with self._changed:
            return bool(self._pending)

    @property
    def pending_seconds(self) -> float:
        """How long the oldest request has been pending; 0 if there is none."""
        with self._changed:
            return time.monotonic() - self._pending[0].since if self._pending else 0.0

    @property
    def pid(self) -> int:
        """Process ID of the current writer process."""
        return self._process.pid

    def submit(self, request: Request) -> None:
        """Send a request. No other request with its buffer may be pending."""
        with self._changed:
            self._pending.append(_Pending(request, time.monotonic()))
            self._send(request)

    def wait(self, timeout: float | None = None, buffer: int | None = None) -> None:
        """Wait until no request, or none with `buffer`, is pending.

        Raises the first error since the last call, or Retryable after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: not self._uses(buffer), timeout):
                raise Retryable(Reason.TRAINER_ERROR, f"a checkpoint was not committed within {timeout:.0f} s")
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _uses(self, buffer: int | None) -> bool:
        return any(buffer in (None, pending.request["buffer"]) for pending in self._pending)

    def close(self) -> None:
        """Wait until the process has finished its requests and ended."""
        with self._changed:
            self._closed = True
            process = self._process
        if process.stdin is not None:
            process.stdin.close()
        process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "distill_trainer.checkpoint.writer.process"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=self._buffers,
            # A new session, so that the commit finishes even if the rank's process group is killed.
            start_new_session=True,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._read_responses, args=(process,), name="checkpoint-writer", daemon=True).start()
        return process

    def _send(self, request: Request) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
        except BrokenPipeError:
            # The reading thread restarts the process and sends the requests again.
            log.warning("cannot write to the checkpoint writer process %d, which has died", self._process.pid)

    def _read_responses(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._receive(json.loads(line))
        code = process.wait()
        with self._changed:
            if self._closed:
                return
            self._deaths += 1
            log.error("the checkpoint writer process %d died (exit code %d)", process.pid, code)
            if self._deaths >= _TRIES:
                self._error = self._error or Retryable(
                    Reason.PROCESS_KILLED,
                    f"the checkpoint writer process died {_TRIES} times, the last time with exit code {code}",
                )
                self._deaths = 0
                self._pending.clear()
                self._changed.notify_all()
            self._process = self._start()
            for pending in self._pending:
                self._send(pending.request)

    def _receive(self, response: Response) -> None:
        error = self._error_of(response)
        try:
            if "committedAt" in response:
                self._on_committed(response)
        finally:
            with self._changed:
                self._deaths = 0
                self._error = self._error or error
                self._pending.popleft()
                self._changed.notify_all()

    def _error_of(self, response: Response) -> TrainerError | None:
        if "committedAt" in response or "replaced" in response:
            return None
        if "fencedBy" in response:
            return superseded(self._fence, Fence(**response["fencedBy"]))
        if "errno" in response:
            path = response["path"]
            return storage_error(OSError(response["errno"], os.strerror(response["errno"]), path), path)
        kind = Permanent if response["permanent"] else Retryable
        return kind(Reason(response["reason"]), response["message"])
