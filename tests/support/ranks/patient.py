"""`patient`: a backend of torch.distributed that behaves as NCCL's does, on CPUs, over gloo.

A collective whose peer is gone neither returns nor raises. Destroying the group waits until all ranks do so. After the
group's timeout, or PATIENT_ABORT_SECONDS, c10d's watchdog kills the process by SIGABRT. The flight recorder knows what
is under way and what has completed.
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

import torch
import torch.distributed as dist

from distill_trainer.process.liveness import flight_recorder
from distill_trainer.training.parallel.environment import Environment

NAME = "patient"
ABORT_SECONDS = "PATIENT_ABORT_SECONDS"


@dataclass
class _Recorder:
    """The collectives, by their number."""

    names: dict[int, str] = field(default_factory=dict)
    active: dict[int, float] = field(default_factory=dict)
    """Since when, by time.monotonic."""
    completed: int = 0

    @contextmanager
    def running(self, name: str) -> Iterator[None]:
        number = len(self.names) + 1
        self.names[number] = name
        self.active[number] = time.monotonic()
        yield
        del self.active[number]
        self.completed = number

    def dump(self) -> str:
        """As torch's, which has told here what gloo's collectives are: numbers of the group's status are texts."""
        entries = [
            {
                "record_id": number - 1,
                "collective_seq_id": number,
                "profiling_name": f"nccl:{name}",
                "state": "started" if number in self.active else "completed",
            }
            for number, name in self.names.items()
        ]
        status = {"last_completed_collective": str(self.completed or -1)}
        return json.dumps({"version": "2.10", "entries": entries, "pg_status": {"0": status}})

    def abort_after(self, seconds: float) -> None:
        """Kill the process once a collective has taken so long."""
        while True:
            time.sleep(0.2)
            if any(time.monotonic() - since > seconds for since in list(self.active.values())):
                said = "Process group watchdog thread terminated with exception: collective operation timeout"
                os.write(2, f"[Rank {os.environ['RANK']}] {said}\n".encode())
                os.abort()


RECORDER = _Recorder()


class _Done(dist.Work):
    """A collective that has completed."""

    def __init__(self, result: list[torch.Tensor]) -> None:
        super().__init__()
        self._result = result

    def wait(self, timeout: timedelta | None = None) -> bool:  # noqa: ARG002  (torch's signature)
        return True

    def is_completed(self) -> bool:
        return True

    def get_future(self) -> "torch.futures.Future[list[torch.Tensor]]":
        future: torch.futures.Future[list[torch.Tensor]] = torch.futures.Future()
        future.set_result(self._result)
        return future


class Patient(dist.ProcessGroup):
    """Collectives over gloo, which return when all ranks have taken part, or never."""

    def __init__(self, store: Any, rank: int, size: int, timeout: timedelta) -> None:
        super().__init__(rank, size)
        self._store = store
        self._gloo = dist.ProcessGroupGloo(store, rank, size, timedelta(days=1))
        seconds = float(os.environ.get(ABORT_SECONDS, timeout.total_seconds()))
        threading.Thread(target=RECORDER.abort_after, args=[seconds], daemon=True).start()

    def getBackendName(self) -> str:  # noqa: N802  (torch's name)
        return NAME

    def allreduce(self, tensors: Any, options: Any = None) -> dist.Work:
        options = options or dist.AllreduceOptions()
        return _patiently("all_reduce", lambda: self._gloo.allreduce(tensors, options), tensors)

    def broadcast(self, tensors: Any, options: Any = None) -> dist.Work:
        options = options or dist.BroadcastOptions()
        return _patiently("broadcast", lambda: self._gloo.broadcast(tensors, options), tensors)

    def allgather(self, outputs: Any, inputs: Any, options: Any = None) -> dist.Work:
        options = options or dist.AllgatherOptions()
        return _patiently("all_gather", lambda: self._gloo.allgather(outputs, inputs, options), outputs)

    def gather(self, outputs: Any, inputs: Any, options: Any = None) -> dist.Work:
        options = options or dist.GatherOptions()
        return _patiently("gather", lambda: self._gloo.gather(outputs, inputs, options), outputs)

    def barrier(self, opts: Any = None) -> dist.Work:
        return _patiently("barrier", lambda: self._gloo.barrier(opts or dist.BarrierOptions()), [])

    def leave(self) -> None:
        """Return when all ranks have come here, or never."""
        try:
            self._store.add("leaving", 1)
            while self._store.add("leaving", 0) < self.size():
                time.sleep(0.05)
        except RuntimeError:  # the node of the store is gone
            threading.Event().wait()


def _patiently(name: str, start: Callable[[], Any], result: list[Any]) -> dist.Work:
    with RECORDER.running(name):
        try:
            start().wait()
        except RuntimeError:  # what gloo says of a peer that is gone
            threading.Event().wait()
    return _Done(result)


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

    def together() -> None:
        group = dist.group.WORLD
        assert isinstance(group, Patient)
        group.leave()
        destroy()

    dist.destroy_process_group = together  # type: ignore[assignment]
