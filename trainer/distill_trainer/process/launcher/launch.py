"""The container's entry point: runs this node's ranks under torchrun's agent and says truly how they ended.

It imports what the agent and the ranks need, once, and leaves a zygote to fork the ranks from; see zygote.py.
The main thread hears signals and the agent runs in another, because torchrun leaves signals unanswered while nodes
look for each other, and a container's first process that does not answer SIGTERM holds its node for the whole grace
period.
"""

import json
import logging
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from distill_api.constants import Env, Reason
from distill_api.constants import Path as ContainerPath
from distill_api.errors import Permanent
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_trainer.checkpoint.format import layout
from distill_trainer.process import offline
from distill_trainer.process.launcher import preload
from distill_trainer.process.launcher.agent import Failure, Gang, Torchrun
from distill_trainer.process.launcher.rendezvous import Endpoint, wait_for_name
from distill_trainer.process.launcher.zygote import Zygote
from distill_trainer.process.liveness.heartbeat import (
    HeartbeatMonitor,
    MissedHeartbeat,
    ask_for_stacks,
    lives,
    stuck_ranks,
)
from distill_trainer.process.liveness.stop import REQUESTS_TO_STOP
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.machine.cpus import available_cpus, threads_per_rank
from distill_trainer.process.machine.oom import oom_kills
from distill_trainer.process.outcome import Ending, RankEnd, conclude, ending_of, stopped_early
from distill_trainer.process.rank.files import FOLDER_VARIABLE, RankFiles, read_run
from distill_trainer.process.run_files import RunFiles
from distill_trainer.process.telemetry.console import CLEAR_LINE

log = logging.getLogger(__name__)

DEFAULT_TERMINATION = Path(ContainerPath.TERMINATION)
"""Where the termination message goes when the RunConfig, which names the place, cannot be read."""

_REPORT_SECONDS = 5.0
"""What is kept of the grace period for the report."""
_LONGEST_SLEEP = 1.0


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
        return _conclude(
            Ending(error.exit_code, message), DEFAULT_TERMINATION if DEFAULT_TERMINATION.exists() else None
        )
    termination = Path(run.directories.termination) if run.directories.termination is not None else None
    _leave_when_asked(lambda: _conclude(stopped_early(run.attempt), termination))
    offline.stay_offline(but=endpoint.host)
    if not os.environ.get("OMP_NUM_THREADS"):  # else Ultralytics, once imported, would leave every rank one thread
        os.environ["OMP_NUM_THREADS"] = str(threads_per_rank(run.local_world_size, available_cpus()))
    try:
        preload.preload((*preload.AGENT, *imports, *(() if run.spec.uses_cuda else preload.COMPILER)))
        zygote = Zygote(rank)
    except Exception as error:
        log.error("what the ranks need cannot be imported", exc_info=error)
        first_rank = node_rank * run.local_world_size
        return _conclude(ending_of(error, None, rank=first_rank, attempt=run.attempt), termination)
    # On a memory volume where there is one: the ranks copy their status here every second.
    with tempfile.TemporaryDirectory(prefix="distill-", ignore_cleanup_errors=True) as folder:
        ending = Launcher(run, node_rank, endpoint, zygote, Path(folder)).run()
    return _conclude(ending, termination)


class Launcher:
    """One node of one attempt."""

    def __init__(self, run: RunConfig, node_rank: int, endpoint: Endpoint, zygote: Zygote, folder: Path) -> None:
        """`endpoint`: where the nodes meet. `folder`: an empty one, for what the ranks hand over."""
        self._run = run
        self._node_rank = node_rank
        self._endpoint = endpoint
        self._zygote = zygote
        self._folder = folder
        self._finished = threading.Event()
        self._stop_requested = False
        self._torchrun: Torchrun | None = None
        self._failures: dict[int, Failure] = {}
        self._error: BaseException | None = None
        self._missed: dict[int, MissedHeartbeat] = {}
        rank_files = {rank: RankFiles(folder, rank) for rank in range(run.local_world_size)}
        self._reports = [files.report_file for files in rank_files.values()]
        self._heartbeats = HeartbeatMonitor({rank: files.heartbeat_file for rank, files in rank_files.items()})

    def run(self) -> Ending:
        """Run the ranks to their end. SIGTERM and SIGINT are handed to them once, and waited for."""
        killed_before = oom_kills()
        for number in REQUESTS_TO_STOP:
            signal.signal(number, self._stop)
        threading.Thread(target=self._attempt, name="torchrun", daemon=True).start()
        # A wait without an end would sleep through a signal that the kernel gives to another thread.
        while not self._finished.wait(_LONGEST_SLEEP):
            if self._orphaned():
                self._stop(signal.SIGTERM, None)
            self._end_silent_ranks()
        return self._with_details(self._ending(oom_kills() > killed_before))

    def _attempt(self) -> None:
        try:
            join_timeout = float(self._run.spec.recovery.scheduling_timeout_seconds)
            wait_for_name(self._endpoint.host, join_timeout)
            gang = Gang(
                run_id=f"{self._run.job}-{self._run.attempt}",
                node_rank=self._node_rank,
                nodes=self._run.nodes,
                processes_per_node=self._run.local_world_size,
                endpoint=self._endpoint,
                join_timeout=join_timeout,
            )
            self._torchrun = Torchrun(gang, self._zygote, {FOLDER_VARIABLE: str(self._folder)}, self._folder)
            self._failures = self._torchrun.run()
        except BaseException as error:  # noqa: BLE001  handed to the main thread, which reports it
            self._error = error
        finally:
            self._finished.set()

    def _end_silent_ranks(self) -> None:
        """End ranks that cannot end themselves, so that what waits for them does not wait any longer."""
        left = {rank for rank, report in enumerate(self._reports) if report.exists()}
        heard = self._heartbeats.missed()
        all_missed = {rank: missed for rank, missed in heard.items() if rank not in left and lives(missed.pid)}
        limits = timeouts(self._run.spec.recovery.stall_timeout_seconds)
        stuck = stuck_ranks(all_missed, limits, others_leave=bool(left) or self._stop_requested)
        new = {rank: missed for rank, missed in stuck.items() if rank not in self._missed}
        if not new or self._torchrun is None:
            return
        for rank, missed in new.items():
            log.error(
                "rank %d has answered nothing for %.0f s, in phase %s; ending it",
                self._first_rank + rank, missed.seconds, missed.phase,
            )  # fmt: skip
        self._missed |= new
        # A process that is ending may be asked as well; those that have ended are not in the way.
        ask_for_stacks(missed.pid for missed in all_missed.values())
        self._torchrun.kill(missed.pid for missed in new.values())

    def _stop(self, signum: int, _frame: FrameType | None) -> None:
        if self._stop_requested:
            return
        self._stop_requested = True
        log.info("stopping: received %s", signal.Signals(signum).name)
        torchrun = self._torchrun
        if torchrun is None or not torchrun.stop():
            self._finished.set()
            return
        patience = max(1.0, self._run.spec.recovery.grace_period_seconds - _REPORT_SECONDS)
        timer = threading.Timer(patience, torchrun.kill)
        timer.daemon = True
        timer.start()

    def _ending(self, oom_killed: bool) -> Ending:
        started = self._torchrun is not None and self._torchrun.started
        if self._stop_requested and not started:
            return stopped_early(self._run.attempt)
        ends = [self._end_of(local_rank) for local_rank in range(self._run.local_world_size)]
        if self._error is not None and not any(end.report for end in ends):
            ending = ending_of(self._error, None, rank=self._first_rank, attempt=self._run.attempt)
            if ending.unexpected:
                log.error("the launcher failed", exc_info=self._error)
            return ending
        return conclude(
            ends,
            attempt=self._run.attempt,
            world_size=self._run.world_size,
            stop_requested=self._stop_requested,
            oom_killed=oom_killed,
        )

    @staticmethod
    def _orphaned() -> bool:
        """Whether the process of the person who started this is gone."""
        parent = os.environ.get(Env.PARENT, "")
        return parent.isdigit() and os.getppid() != int(parent)

    @property
    def _first_rank(self) -> int:
        return self._node_rank * self._run.local_world_size

    def _end_of(self, local_rank: int) -> RankEnd:
        rank = self._first_rank + local_rank
        failure = self._failures.get(rank, Failure(0, 0.0))
        files = RankFiles(self._folder, local_rank)
        report, status = files.report(), files.status()
        stepped = status is not None and status.steps_this_attempt > 0
        at = report.at if report else failure.at
        return RankEnd(rank, failure.exit_code, at, report, stepped, self._missed.get(local_rank))

    def _with_details(self, ending: Ending) -> Ending:
        """Fill in what a rank that was killed could not say: steps, and rank 0's progress."""
        message = ending.message
        details: dict[str, object] = {}
        if message.rank is not None and message.step is None:
            status = RankFiles(self._folder, message.rank - self._first_rank).status()
            if status is not None:
                details |= {
                    "step": status.progress.step,
                    "resumed_from_step": status.resumed_from_step,
                }
        if message.committed_step is None:
            try:
                steps = layout.committed_steps(RunFiles.of(self._run).checkpoints)
            except OSError as error:
                log.warning("the checkpoints volume cannot be listed: %s", error)
                steps = []
            details["committed_step"] = steps[-1] if steps else None
        if message.progress is None and self._node_rank == 0:
            status = RankFiles(self._folder, 0).status()
            details["progress"] = status.progress if status else None
            details["seconds"] = status.seconds if status else None
        return Ending(ending.exit_code, message.model_copy(update=details))


def _leave_when_asked(conclude: Callable[[], int]) -> None:
    """Until there are ranks, a request to stop ends this process, in the midst of an import if need be."""

    def leave(signum: int, _frame: FrameType | None) -> NoReturn:
        log.info("stopping: received %s", signal.Signals(signum).name)
        exit_process(conclude())

    for number in REQUESTS_TO_STOP:
        signal.signal(number, leave)


def _conclude(ending: Ending, termination: Path | None) -> int:
    """Tell log and Kubernetes how the attempt ended; return the exit code."""
    announce(ending)
    if termination is not None:
        write_termination_message(termination, ending.message)
    return ending.exit_code


def announce(ending: Ending) -> None:
    """Tell the log how the attempt ended, in one line."""
    message = ending.message
    if message.outcome == "done":
        return
    if message.outcome == "stopped":
        print(message.message, file=sys.stderr)
    else:
        print(f"error: {message.reason}: {message.message}", file=sys.stderr)


def write_termination_message(path: Path, message: TerminationMessage) -> None:
    """Write the message where Kubernetes looks for it. A failure is logged: the exit code still tells the outcome."""
    try:
        # Kubernetes mounts this one file, so it cannot be replaced by a rename.
        path.write_text(message.to_json())
    except OSError as error:
        log.error("the termination message cannot be written to %s: %s", path, error.strerror)


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
