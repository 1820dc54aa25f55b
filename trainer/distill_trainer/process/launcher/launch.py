"""The container's entry point: runs this node's ranks under torchrun's agent and says truly how they ended.

It imports what the agent and the ranks need, once, and leaves a zygote to fork the ranks from; see zygote.py.
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
from distill_trainer.process.liveness.stop import REQUESTS_TO_STOP
from distill_trainer.process.machine.cpus import available_cpus, threads_per_rank
from distill_trainer.process.outcome import Ending, ending_of, stopped_early
from distill_trainer.process.rank.files import read_run
from distill_trainer.process.telemetry.console import CLEAR_LINE

log = logging.getLogger(__name__)

DEFAULT_TERMINATION = Path(ContainerPath.TERMINATION)
"""Where the termination message goes when the RunConfig, which names the place, cannot be read."""


def main(rank: Callable[[], NoReturn], imports: Sequence[str]) -> int:
    """Run one attempt on this node, as the environment tells, and return the container's exit code.

    `rank` is what each rank runs, in a process forked from one that has imported `imports`.
    """
    over_the_bar = CLEAR_LINE if sys.stderr.isatty() else ""
    logging.basicConfig(
        level=logging.INFO, format=f"{over_the_bar}%(asctime)s launcher %(levelname)s: %(message)s", stream=sys.stderr
    )
    try:
        run = read_run(os.environ)
        node_rank = _node_rank(os.environ, run)
        endpoint = Endpoint.parse(run.rendezvous)
    except Permanent as error:
        message = TerminationMessage(
            outcome="permanent", reason=error.reason, message=error.message, attempt=_told_attempt(os.environ)
        )
        return conclude_attempt(
            Ending(error.exit_code, message), DEFAULT_TERMINATION if DEFAULT_TERMINATION.exists() else None
        )
    termination = Path(run.directories.termination) if run.directories.termination is not None else None
    _leave_when_asked(lambda: conclude_attempt(stopped_early(run.attempt), termination))
    offline.stay_offline(but=endpoint.host)
    if not os.environ.get("OMP_NUM_THREADS"):  # else Ultralytics, once imported, would leave every rank one thread
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(run.local_world_size, available_cpus()))
    try:
        preload.preload((*preload.AGENT, *imports, *(() if run.spec.uses_cuda else preload.COMPILER)))
        zygote = Zygote(rank)
    except Exception as error:
        log.error("what the ranks need cannot be imported", exc_info=error)
        first_rank = node_rank * run.local_world_size
        return conclude_attempt(ending_of(error, None, rank=first_rank, attempt=run.attempt), termination)
    # On a memory volume where there is one: the ranks copy their status here every second.
    with tempfile.TemporaryDirectory(prefix="distill-", ignore_cleanup_errors=True) as folder:
        ending = Launcher(run, node_rank, endpoint, zygote, Path(folder)).run()
    return conclude_attempt(ending, termination)


def _leave_when_asked(conclude: Callable[[], int]) -> None:
    """Until there are ranks, a request to stop ends this process, in the midst of an import if need be."""

    def leave(signum: int, _frame: FrameType | None) -> NoReturn:
        log.info("stopping: received %s", signal.Signals(signum).name)
        exit_process(conclude())

    for number in REQUESTS_TO_STOP:
        signal.signal(number, leave)


def _told_attempt(environ: Mapping[str, str]) -> int:
    """The attempt's number out of a RunConfig that is wrong elsewhere; 1 when it cannot be told."""
    try:
        number = json.loads(environ.get(Env.RUN, ""))["attempt"]
    except (ValueError, KeyError, TypeError):
        return 1
    return number if isinstance(number, int) and number >= 1 else 1


def _node_rank(environ: Mapping[str, str], run: RunConfig) -> int:
    text = environ.get(Env.NODE_RANK, "0")
    if not text.isdigit() or int(text) >= run.nodes:
        raise Permanent(
            Reason.CONFIG_INVALID,
            f"{Env.NODE_RANK} is {text!r}; it must be a number below the {run.nodes} nodes of this attempt",
        )
    return int(text)


def exit_process(code: int) -> NoReturn:
    """Leave with `code` at once: native threads of the agent may hang in a connection that is gone."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
