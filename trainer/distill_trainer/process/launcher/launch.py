"""The container's entry point: runs this node's ranks under torchrun's agent and reports how they ended.

It imports everything that the agent and the ranks need, once, and forks the zygote; see zygote.py.
"""

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from distill_api.constants import Env
from distill_api.constants import Path as ContainerPath
from distill_api.errors import Permanent
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_trainer.process import offline
from distill_trainer.process.launcher import preload
from distill_trainer.process.launcher.launcher import Launcher
from distill_trainer.process.launcher.rendezvous import Endpoint
from distill_trainer.process.launcher.termination import conclude_attempt
from distill_trainer.process.launcher.zygote import Zygote
from distill_trainer.process.liveness.stop import STOP_SIGNALS
from distill_trainer.process.machine.cpus import available_cpus, threads_per_rank
from distill_trainer.process.outcome import Ending, ending_of, stopped_before_first_step
from distill_trainer.process.rank.files import read_run_config
from distill_trainer.process.telemetry import logs
from distill_trainer.process.telemetry.logs import LogFacts
from distill_trainer.process.telemetry.stderr import RankStderr

log = logging.getLogger(__name__)

DEFAULT_TERMINATION = Path(ContainerPath.TERMINATION)
"""Termination message file to use when the RunConfig, which names the file, cannot be read."""


def main(rank: Callable[[], NoReturn], imports: Sequence[str]) -> int:
    """Run one attempt on this node, configured by environment variables, and return the container's exit code.

    Each rank calls `rank` in a process forked from one that has imported `imports`.
    """
    facts = LogFacts()
    logs.configure(facts)
    try:
        run = read_run_config(os.environ)
        facts.job, facts.attempt = run.job, run.attempt
        node_rank = _node_rank(os.environ, run)
        endpoint = Endpoint.parse(run.rendezvous)
    except Permanent as error:
        message = TerminationMessage(
            outcome="permanent", reason=error.reason, message=error.message, attempt=_attempt_number(os.environ)
        )
        return conclude_attempt(
            Ending(error.exit_code, message), DEFAULT_TERMINATION if DEFAULT_TERMINATION.exists() else None
        )
    termination = Path(run.directories.termination) if run.directories.termination is not None else None
    _exit_on_stop_signal(lambda: conclude_attempt(stopped_before_first_step(run.attempt), termination))
    offline.stay_offline(allowed_host=endpoint.host)
    if not os.environ.get("OMP_NUM_THREADS"):  # importing Ultralytics sets it to 1 if it is not set
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(run.local_world_size, available_cpus()))
    try:
        preload.preload((*preload.AGENT, *imports, *(() if run.spec.uses_cuda else preload.COMPILER)))
        stderr = RankStderr(run.local_world_size)
        zygote = Zygote(rank, stderr.redirect)
    except Exception as error:
        log.error("importing the trainer's modules failed", exc_info=error)
        first_rank = node_rank * run.local_world_size
        return conclude_attempt(ending_of(error, None, rank=first_rank, attempt=run.attempt), termination)
    # TMPDIR may be a memory volume: the ranks write their status here every second.
    with tempfile.TemporaryDirectory(prefix="distill-", ignore_cleanup_errors=True) as folder:
        ending = Launcher(run, node_rank, endpoint, zygote, stderr, Path(folder)).run()
    return conclude_attempt(ending, termination)


def _exit_on_stop_signal(conclude: Callable[[], int]) -> None:
    """Exit on a stop signal, even during an import. The launcher replaces these handlers."""

    def on_signal(signum: int, _frame: FrameType | None) -> NoReturn:
        log.info("stopping: received %s", signal.Signals(signum).name)
        exit_process(conclude())

    for number in STOP_SIGNALS:
        signal.signal(number, on_signal)


def _attempt_number(environ: Mapping[str, str]) -> int:
    """The attempt's number, even if the RunConfig is invalid; 1 if it cannot be read."""
    labelled = environ.get(Env.ATTEMPT, "")
    try:
        number = int(labelled) if labelled else json.loads(environ.get(Env.RUN, ""))["attempt"]
    except (ValueError, KeyError, TypeError):
        return 1
    return number if isinstance(number, int) and number >= 1 else 1


def _node_rank(environ: Mapping[str, str], run: RunConfig) -> int:
    text = environ.get(Env.NODE_RANK, "0")
    if not text.isdigit() or int(text) >= run.nodes:
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"{Env.NODE_RANK} is {text!r}; it must be a number from 0 to {run.nodes - 1}",
        )
    return int(text)


def exit_process(code: int) -> NoReturn:
    """Exit immediately with `code`: native threads of the agent may hang in a broken connection."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
