"""The rank's side of the writer process: gives orders, hears answers, starts a new process when one is killed."""

import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from distill_api.errors import Permanent, Retryable, TrainerError
from distill_api.reasons import Reason
from distill_trainer.checkpoint.store.fence import superseded
from distill_trainer.checkpoint.store.storage import storage_error

log = logging.getLogger(__name__)

Order = dict[str, Any]
Answer = dict[str, Any]

_TRIES: Final = 3
"""Processes that may die over one order before the attempt is given up."""


class BackgroundWriter:
    """At most one order is in flight. The shared memory must not change between `submit` and the end of `wait`."""

    def __init__(self, buffer: int, attempt: int, on_answer: Callable[[Answer], None]) -> None:
        """`buffer` is the descriptor of the shared memory; `on_answer` runs in a thread of this object."""
        self._buffer = buffer
        self._attempt = attempt
        self._on_answer = on_answer
        self._changed = threading.Condition()
        self._order: Order | None = None
        self._submitted = 0.0
        self._deaths = 0
        self._error: TrainerError | None = None
        self._closed = False
        self._process = self._start()

    @property
    def busy(self) -> bool:
        """Whether an order is in flight."""
        with self._changed:
            return self._order is not None

    @property
    def in_flight_seconds(self) -> float:
        """For how long the order has been in flight; 0 without one."""
        with self._changed:
            return time.monotonic() - self._submitted if self._order is not None else 0.0

    @property
    def pid(self) -> int:
        """Process id of the present writer process."""
        return self._process.pid

    def submit(self, order: Order) -> None:
        """Hand over an order. None may be in flight."""
        with self._changed:
            self._order = order
            self._submitted = time.monotonic()
            self._deaths = 0
            self._send()

    def wait(self, timeout: float | None = None) -> None:
        """Return when no order is in flight.

        Raises what went wrong with the last one (once), or Retryable after `timeout` seconds.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: self._order is None, timeout):
                raise Retryable(Reason.TRAINER_ERROR, f"a checkpoint was not committed within {timeout:.0f} s")
            error, self._error = self._error, None
        if error is not None:
            raise error

    def close(self) -> None:
        """Let the process finish what it has and end."""
        with self._changed:
            self._closed = True
            process = self._process
        if process.stdin is not None:
            process.stdin.close()
        process.wait()

    def _start(self) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            [sys.executable, "-m", "distill_trainer.checkpoint.writer.process", str(self._buffer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=(self._buffer,),
            # A session of its own: what kills the rank's process group lets the commit finish.
            start_new_session=True,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        threading.Thread(target=self._listen, args=(process,), name="checkpoint-writer", daemon=True).start()
        return process

    def _send(self) -> None:
        stdin = self._process.stdin
        assert stdin is not None
        try:
            stdin.write(json.dumps(self._order) + "\n")
            stdin.flush()
        except BrokenPipeError:
            # It has died; the listening thread starts another one and sends the order again.
            log.warning("the checkpoint writer process %d does not listen", self._process.pid)

    def _listen(self, process: "subprocess.Popen[str]") -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._hear(json.loads(line))
        code = process.wait()
        with self._changed:
            if self._closed:
                return
            self._deaths += 1
            log.error("the checkpoint writer process %d died (exit code %d)", process.pid, code)
            if self._deaths >= _TRIES:
                self._error = Retryable(
                    Reason.PROCESS_KILLED, f"the checkpoint writer process died {_TRIES} times, last with {code}"
                )
                self._order = None
                self._changed.notify_all()
                return
            self._process = self._start()
            if self._order is not None:
                self._send()

    def _hear(self, answer: Answer) -> None:
        error = self._error_of(answer)
        try:
            if error is None:
                self._on_answer(answer)
        finally:
            with self._changed:
                self._deaths = 0
                self._error = error
                self._order = None
                self._changed.notify_all()

    def _error_of(self, answer: Answer) -> TrainerError | None:
        if "committedAt" in answer:
            return None
        if "fencedBy" in answer:
            return Retryable(Reason.SUPERSEDED, superseded(self._attempt, answer["fencedBy"]))
        if "errno" in answer:
            path = answer["path"]
            return storage_error(OSError(answer["errno"], os.strerror(answer["errno"]), path), path)
        return Permanent(Reason(answer["reason"]), answer["message"])
