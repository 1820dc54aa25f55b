"""torchrun on this node, through its Python API: a static rendezvous and no restarts inside an attempt."""

import importlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_api.constants import Reason
from distill_trainer.errors import Retryable
from distill_trainer.rendezvous import Endpoint

_EXIT_BARRIER_SECONDS = 30.0
_MONITOR_SECONDS = 0.1


@dataclass(frozen=True)
class Gang:
    """This node's part in the gang."""

    run_id: str
    node_rank: int
    nodes: int
    processes_per_node: int
    endpoint: Endpoint
    join_timeout: float
    """Seconds that the nodes have to find each other."""


@dataclass(frozen=True)
class Failure:
    """A worker that did not exit with 0."""

    exit_code: int
    """Negative for a signal."""
    at: float
    """Unix time when it was noticed, in whole seconds."""


class Torchrun:
    """The agent of one node. `run` blocks; `stop` may be called from another thread or a signal handler."""

    def __init__(self, gang: Gang, command: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        """`command` is each worker's command line, `environ` is added to its environment."""
        self._gang = gang
        self._command = list(command)
        self._environ = dict(environ)
        self._folder = folder
        self._lock = threading.RLock()
        self._pids: list[int] = []
        self._stop_requested = False

    @property
    def started(self) -> bool:
        """Whether worker processes have been started."""
        return bool(self._pids)

    def run(self) -> dict[int, Failure]:
        """Start the workers and return, once all have ended, those that failed, by global rank.

        One failure ends the others. Raises Retryable when the nodes do not find each other.
        """
        os.environ.update(self._environ)
        # Every node has as many processes, so ranks follow from node ranks without a round through the store.
        os.environ["TORCH_ELASTIC_WORKER_IDENTICAL"] = "1"
        from torch.distributed.elastic.agent.server.api import WorkerSpec
        from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
        from torch.distributed.elastic.rendezvous import RendezvousParameters
        from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler

        # What it would say is said once and better by the launcher.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        gang = self._gang
        outer = self

        class Agent(LocalElasticAgent):
            def _start_workers(self, worker_group):  # type: ignore[no-untyped-def]
                with outer._lock:
                    if outer._stop_requested:
                        raise Retryable(Reason.STOPPED, "stopped before a worker was started")
                    ids = super()._start_workers(worker_group)
                    outer._pids = list(ids.values())
                    return ids

        parameters = RendezvousParameters(
            backend="static",
            endpoint=f"{gang.endpoint.host}:{gang.endpoint.port}",
            run_id=gang.run_id,
            min_nodes=gang.nodes,
            max_nodes=gang.nodes,
            rank=gang.node_rank,
            timeout=int(gang.join_timeout),
        )
        spec = WorkerSpec(
            role="trainer",
            local_world_size=gang.processes_per_node,
            entrypoint=self._command[0],
            args=tuple(self._command[1:]),
            rdzv_handler=create_rdzv_handler(parameters),
            max_restarts=0,
            monitor_interval=_MONITOR_SECONDS,
            master_addr=gang.endpoint.host,
            master_port=gang.endpoint.port,
        )
        agent = Agent(
            spec,
            logs_specs=DefaultLogsSpecs(log_dir=str(self._folder / "torchrun")),
            exit_barrier_timeout=_EXIT_BARRIER_SECONDS,
        )
        try:
            result = agent.run()
        except (RuntimeError, OSError) as error:
            if self.started:
                raise
            raise Retryable(
                Reason.PEER_LOST,
                f"the {gang.nodes} nodes did not meet at {gang.endpoint.host}:{gang.endpoint.port}: {error}",
            ) from error
        return {rank: Failure(failure.exitcode, float(failure.timestamp)) for rank, failure in result.failures.items()}

    def stop(self) -> bool:
        """Tell the workers to stop, once. False when there are none and none will be started any more."""
        with self._lock:
            first, self._stop_requested = not self._stop_requested, True
            if first:
                self._signal(signal.SIGTERM)
            return self.started

    def kill(self, pids: Iterable[int] | None = None) -> None:
        """End the workers at once, or those of them with these process ids."""
        with self._lock:
            self._signal(signal.SIGKILL, set(self._pids if pids is None else pids))

    def _signal(self, number: signal.Signals, only: Collection[int] | None = None) -> None:
        for pid in self._pids if only is None else [pid for pid in self._pids if pid in only]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


def load_torchrun() -> None:
    """Import what `Torchrun.run` needs: PyTorch, mostly."""
    for module in ("agent.server.local_elastic_agent", "rendezvous.static_tcp_rendezvous"):
        importlib.import_module(f"torch.distributed.elastic.{module}")


def default_command() -> list[str]:
    """What each worker runs."""
    return [sys.executable, "-m", "distill_trainer.worker"]
