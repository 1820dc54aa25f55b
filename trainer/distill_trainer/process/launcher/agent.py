"""Runs torchrun's agent on this node: static rendezvous, ranks forked from the zygote, no restarts in an attempt."""

import logging
import os
import signal
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any

from distill_api.errors import Retryable
from distill_api.reasons import Reason
from distill_trainer.process.launcher.rendezvous import Endpoint
from distill_trainer.process.launcher.zygote import RankProcess, Zygote
from distill_trainer.process.liveness import flight_recorder
from distill_trainer.process.liveness.timeouts import timeouts

_EXIT_BARRIER_SECONDS = 30.0
_MONITOR_SECONDS = 0.1

_HEARTBEAT_SECONDS = 3600.0


def gpu_variables(stall_timeout_seconds: float, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that PyTorch reads on GPUs, where `environ` says nothing else.

    An error of NCCL ends the process at once instead of waiting for other collectives. c10d's own monitor never acts
    before this project's watchdog, which knows rank and phase. Memory that was freed can be used for tensors of other
    sizes, as when distillation ends.
    """
    heartbeat = ceil(max(_HEARTBEAT_SECONDS, timeouts(stall_timeout_seconds).operator))
    variables = {
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "3",
        "TORCH_NCCL_HEARTBEAT_TIMEOUT_SEC": str(heartbeat),
        **flight_recorder.VARIABLES,
        "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True",
    }
    return {name: environ.get(name, value) for name, value in variables.items()}


@dataclass(frozen=True)
class Gang:
    """The gang, and this node's rank in it."""

    run_id: str
    node_rank: int
    nodes: int
    processes_per_node: int
    endpoint: Endpoint
    join_timeout: float
    """Seconds that nodes wait for each other at the rendezvous."""


@dataclass(frozen=True)
class Failure:
    """A worker with a nonzero exit code."""

    exit_code: int
    """Negative for a signal."""
    at: float
    """Unix time when the agent saw it, in whole seconds."""


class Torchrun:
    """torchrun's agent on one node. `run` blocks; `stop` may be called from another thread or a signal handler."""

    def __init__(self, gang: Gang, zygote: Zygote, environ: Mapping[str, str], folder: Path) -> None:
        """Ranks are forked from `zygote`; `environ` is added to their environment."""
        self._gang = gang
        self._zygote = zygote
        self._environ = dict(environ)
        self._folder = folder
        self._lock = threading.RLock()
        self._pids: list[int] = []
        self._stop_requested = False

    @property
    def started(self) -> bool:
        """Whether ranks have been started."""
        return bool(self._pids)

    def run(self) -> dict[int, Failure]:
        """Start the ranks, wait until all have ended, and return the failed ones by global rank.

        When one rank fails, the others are killed. Raises Retryable if the nodes do not meet at the rendezvous.
        """
        # All nodes have the same number of processes, so ranks follow from node ranks without a round in the store.
        os.environ["TORCH_ELASTIC_WORKER_IDENTICAL"] = "1"
        from torch.distributed.elastic.agent.server.local_elastic_agent import LocalElasticAgent
        from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SubprocessContext

        # The launcher logs failures itself.
        logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)
        gang = self._gang
        outer = self

        class Forked(SubprocessContext):
            def _start(self) -> None:
                handlers: dict[int, Any] = dict(enumerate(outer._fork(self.envs)))
                self.subprocess_handlers = handlers

        class Agent(LocalElasticAgent):
            def _start_workers(self, worker_group):  # type: ignore[no-untyped-def]
                environs = {worker.local_rank: _variables(worker, worker_group) for worker in worker_group.workers}
                no_arguments = dict.fromkeys(environs, ())
                self._pcontext = Forked("trainer", "rank", no_arguments, environs, self._logs_specs)
                self._pcontext.start()
                return self._pcontext.pids()

        agent = Agent(
            self._worker_spec(),
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
                f"rendezvous of {gang.nodes} nodes at {gang.endpoint.host}:{gang.endpoint.port} failed: {error}",
            ) from error
        return {rank: Failure(failure.exitcode, float(failure.timestamp)) for rank, failure in result.failures.items()}

    def _worker_spec(self) -> Any:
        """torchrun's WorkerSpec: static rendezvous, no restarts."""
        from torch.distributed.elastic.agent.server.api import WorkerSpec
        from torch.distributed.elastic.rendezvous import RendezvousParameters
        from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import create_rdzv_handler

        gang = self._gang
        parameters = RendezvousParameters(
            backend="static",
            endpoint=f"{gang.endpoint.host}:{gang.endpoint.port}",
            run_id=gang.run_id,
            min_nodes=gang.nodes,
            max_nodes=gang.nodes,
            rank=gang.node_rank,
            timeout=int(gang.join_timeout),
        )
        return WorkerSpec(
            role="trainer",
            local_world_size=gang.processes_per_node,
            entrypoint="rank",
            rdzv_handler=create_rdzv_handler(parameters),
            max_restarts=0,
            monitor_interval=_MONITOR_SECONDS,
            master_addr=gang.endpoint.host,
            master_port=gang.endpoint.port,
        )

    def _fork(self, environs: Mapping[int, Mapping[str, str]]) -> list["_Rank"]:
        with self._lock:
            if self._stop_requested:
                raise Retryable(Reason.STOPPED, "stopped before any rank was started")
            try:
                processes = self._zygote.start([{**environs[rank], **self._environ} for rank in sorted(environs)])
            except OSError as error:
                raise Retryable(Reason.TRAINER_ERROR, str(error)) from error
            self._pids = [process.pid for process in processes]
            return [_Rank(process) for process in processes]

    def stop(self) -> bool:
        """Send SIGTERM to the ranks, once. Returns False if no rank was started; then none will be."""
        with self._lock:
            first, self._stop_requested = not self._stop_requested, True
            if first:
                self._signal(signal.SIGTERM)
            return self.started

    def kill(self, pids: Iterable[int] | None = None) -> None:
        """Kill the ranks, or only those with these process IDs."""
        with self._lock:
            self._signal(signal.SIGKILL, set(self._pids if pids is None else pids))

    def _signal(self, number: signal.Signals, only: Collection[int] | None = None) -> None:
        for pid in self._pids if only is None else [pid for pid in self._pids if pid in only]:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue


@dataclass(frozen=True)
class _Rank:
    """A rank in the form that torchrun's SubprocessContext expects."""

    proc: RankProcess

    def close(self, death_sig: signal.Signals = signal.SIGTERM) -> None:
        """Send the signal to the rank and its loader workers."""
        os.killpg(self.proc.pid, death_sig)


def _variables(worker, group) -> dict[str, str]:  # type: ignore[no-untyped-def]
    """The variables that torch.distributed's env:// and `TorchrunEnv` read in a rank."""
    return {
        "RANK": str(worker.global_rank),
        "LOCAL_RANK": str(worker.local_rank),
        "GROUP_RANK": str(group.group_rank),
        "WORLD_SIZE": str(worker.world_size),
        "LOCAL_WORLD_SIZE": str(group.spec.local_world_size),
        "MASTER_ADDR": group.master_addr,
        "MASTER_PORT": str(group.master_port),
        "TORCHELASTIC_RUN_ID": group.spec.rdzv_handler.get_run_id(),
        "TORCHELASTIC_RESTART_COUNT": "0",
        "TORCHELASTIC_MAX_RESTARTS": "0",
        "TORCHELASTIC_USE_AGENT_STORE": str(group.spec.rdzv_handler.use_agent_store),
    }
