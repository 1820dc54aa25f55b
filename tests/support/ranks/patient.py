"""`patient`: a backend of torch.distributed that behaves as NCCL's does, on CPUs, over gloo.

A collective whose peer is gone neither returns nor raises. Destroying the group waits for the collectives under way.
After the group's timeout c10d's watchdog kills the process by SIGABRT. The flight recorder knows what is under way.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch.distributed as dist

from distill_trainer.process.liveness import flight_recorder
from distill_trainer.training.parallel.environment import Environment

NAME = "patient"


@dataclass
class _Recorder:
    """The collectives under way, by their number."""

    active: dict[int, tuple[str, float]] = field(default_factory=dict)
    count: int = 0

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        self.count += 1
        number = self.count
        self.active[number] = name, time.monotonic()
        yield
        del self.active[number]

    def dump(self) -> str:
        entries = [
            {"record_id": number, "collective_seq_id": number, "profiling_name": f"nccl:{name}", "state": "started"}
            for number, (name, _) in self.active.items()
        ]
        return json.dumps({"version": "2.10", "entries": entries})

    def abort_after(self, seconds: float) -> None:
        """Kill the process once a collective has taken so long."""
        while True:
            time.sleep(0.2)
            if any(time.monotonic() - since > seconds for _, since in list(self.active.values())):
                os.abort()


RECORDER = _Recorder()


class _Done(dist.Work):
    """A collective that has completed."""

    def wait(self, timeout: timedelta | None = None) -> bool:  # noqa: ARG002  (torch's signature)
        return True

    def is_completed(self) -> bool:
        return True


class Patient(dist.ProcessGroup):
    """Collectives over gloo, which return when all ranks have taken part, or never."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timedelta(days=1))
        threading.Thread(target=RECORDER.abort_after, args=[timeout.total_seconds()], daemon=True).start()

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        return NAME

    def allreduce(self, tensors: Any, options: Any = None) -> dist.Work:
        return _patiently("all_reduce", lambda: self._gloo.allreduce(tensors, options or dist.AllreduceOptions()))

    def broadcast(self, tensors: Any, options: Any = None) -> dist.Work:
        return _patiently("broadcast", lambda: self._gloo.broadcast(tensors, options or dist.BroadcastOptions()))

    def barrier(self, opts: Any = None) -> dist.Work:
        return _patiently("barrier", lambda: self._gloo.barrier(opts or dist.BarrierOptions()))


def _patiently(name: str, start: Callable[[], Any]) -> dist.Work:
    with RECORDER.running(name):
        try:
            start().wait()
        except RuntimeError:  # what gloo says of a peer that is gone
            threading.Event().wait()
    return _Done()


class PatientEnvironment(Environment):
    """The environment of a rank that trains over this backend."""

    @property
    def backend(self) -> str:
        return NAME


def use() -> None:
    """Register the backend, and let this process treat it as it treats NCCL."""
    dist.Backend.register_backend(NAME, Patient, devices=["cpu"])
    flight_recorder._dump = RECORDER.dump  # type: ignore[assignment]
    destroy = dist.destroy_process_group

    def drained() -> None:
        while RECORDER.active:
            time.sleep(0.1)
        destroy()

    dist.destroy_process_group = drained  # type: ignore[assignment]
