"""Runs one node of one attempt: starts its ranks, forwards stop signals, kills stuck ranks, reports how they ended.

The main thread handles signals and the agent runs in another thread, because torchrun does not handle signals during
the rendezvous, and a container that ignores SIGTERM keeps its pod for the whole grace period.
"""

import logging
import os
import signal
import threading
from pathlib import Path
from types import FrameType

from distill_api.constants import Env
from distill_api.pod.run import RunConfig
from distill_trainer.checkpoint.format import layout
from distill_trainer.process.launcher.agent import Failure, Gang, Torchrun, gpu_variables
from distill_trainer.process.launcher.rendezvous import Endpoint, wait_for_name
from distill_trainer.process.launcher.zygote import Zygote
from distill_trainer.process.liveness.heartbeat import (
    HeartbeatMonitor,
    MissedHeartbeat,
    is_alive,
    request_stack_dumps,
    stuck_ranks,
)
from distill_trainer.process.liveness.stop import STOP_SIGNALS
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.machine.oom import oom_kills
from distill_trainer.process.outcome import (
    Ending,
    RankEnd,
    conclude,
    ending_of,
    stopped_before_first_step,
    with_positions,
)
from distill_trainer.process.rank.files import FOLDER_VARIABLE, RankFiles
from distill_trainer.process.run_files import RunFiles
from distill_trainer.process.telemetry.stderr import RankStderr

log = logging.getLogger(__name__)

_REPORT_SECONDS = 5.0
"""Part of the grace period that is reserved for the report."""
_LONGEST_SLEEP = 1.0


class Launcher:
    """One node of one attempt."""

    def __init__(
        self,
        run: RunConfig,
        node_rank: int,
        endpoint: Endpoint,
        zygote: Zygote,
        stderr: RankStderr,
        folder: Path,
    ) -> None:
        """`endpoint`: address of the rendezvous. `stderr`: the ranks'. `folder`: an empty one for their files."""
        self._run = run
        self._node_rank = node_rank
        self._endpoint = endpoint
        self._zygote = zygote
        self._stderr = stderr
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
        """Run the ranks and return how they ended. The first SIGTERM or SIGINT is forwarded to them."""
        killed_before = oom_kills()
        for number in STOP_SIGNALS:
            signal.signal(number, self._stop)
        self._stderr.start()
        threading.Thread(target=self._run_agent, name="torchrun", daemon=True).start()
        # Without a timeout, the wait would not be interrupted by a signal that the kernel delivers to another thread.
        while not self._finished.wait(_LONGEST_SLEEP):
            if self._orphaned():
                self._stop(signal.SIGTERM, None)
            self._kill_stuck_ranks()
        return self._with_details(self._ending(oom_kills() > killed_before))

    def _run_agent(self) -> None:
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
            variables = {FOLDER_VARIABLE: str(self._folder)}
            if self._run.spec.uses_cuda:
                variables |= gpu_variables(self._run.spec.recovery.stall_timeout_seconds, os.environ)
            self._torchrun = Torchrun(gang, self._zygote, variables, self._folder)
            self._failures = self._torchrun.run()
        except BaseException as error:  # noqa: BLE001  handed to the main thread, which reports it
            self._error = error
        finally:
            self._finished.set()

    def _kill_stuck_ranks(self) -> None:
        """Kill ranks without a heartbeat: their own watchdog cannot end them, and other ranks wait for them."""
        ended = {rank for rank, report in enumerate(self._reports) if report.exists()}
        all_missed = {
            rank: missed
            for rank, missed in self._heartbeats.missed().items()
            if rank not in ended and is_alive(missed.pid)
        }
        limits = timeouts(self._run.spec.recovery.stall_timeout_seconds)
        stuck = stuck_ranks(all_missed, limits, others_ended=bool(ended) or self._stop_requested)
        new = {rank: missed for rank, missed in stuck.items() if rank not in self._missed}
        if not new or self._torchrun is None:
            return
        for rank, missed in new.items():
            log.error(
                "rank %d sent no heartbeat for %.0f s in phase %s; killing it",
                self._first_rank + rank, missed.seconds, missed.phase,
            )  # fmt: skip
        self._missed |= new
        request_stack_dumps(missed.pid for missed in all_missed.values())
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
        kill_after = max(1.0, self._run.spec.recovery.grace_period_seconds - _REPORT_SECONDS)
        timer = threading.Timer(kill_after, torchrun.kill)
        timer.daemon = True
        timer.start()

    def _ending(self, oom_killed: bool) -> Ending:
        started = self._torchrun is not None and self._torchrun.started
        if self._stop_requested and not started:
            return stopped_before_first_step(self._run.attempt)
        said = self._stderr.stop()
        ends = [self._end_of(local_rank, said(local_rank)) for local_rank in range(self._run.local_world_size)]
        if self._error is not None and not any(end.report for end in ends):
            ending = ending_of(self._error, None, rank=self._first_rank, attempt=self._run.attempt)
            if ending.unexpected:
                log.error("the launcher failed", exc_info=self._error)
            return ending
        ending = conclude(
            ends,
            attempt=self._run.attempt,
            world_size=self._run.world_size,
            stop_requested=self._stop_requested,
            oom_killed=oom_killed,
        )
        return with_positions(ending, ends)

    @staticmethod
    def _orphaned() -> bool:
        """Whether the process that started this one, named by its environment, has ended."""
        parent = os.environ.get(Env.PARENT, "")
        return parent.isdigit() and os.getppid() != int(parent)

    @property
    def _first_rank(self) -> int:
        return self._node_rank * self._run.local_world_size

    def _end_of(self, local_rank: int, said: str) -> RankEnd:
        rank = self._first_rank + local_rank
        failure = self._failures.get(rank, Failure(0, 0.0))
        files = RankFiles(self._folder, local_rank)
        report, status = files.report(), files.status()
        stepped = status is not None and status.steps_this_attempt > 0
        at = report.at if report else failure.at
        return RankEnd(rank, failure.exit_code, at, report, stepped, self._missed.get(local_rank), said)

    def _with_details(self, ending: Ending) -> Ending:
        """Add what a killed rank could not report: steps, and rank 0's progress."""
        message = ending.message
        details: dict[str, object] = {}
        if message.rank is not None and message.step is None:
            status = RankFiles(self._folder, message.rank - self._first_rank).status()
            if status is not None:
                details |= {
                    "step": status.progress.step,
                    "execution": status.execution,
                    "resumed_from_step": status.resumed_from_step,
                }
        if message.committed_step is None:
            try:
                steps = layout.committed_steps(RunFiles.of(self._run).checkpoints)
            except OSError as error:
                log.warning("cannot list the checkpoints volume: %s", error)
                steps = []
            details["committed_step"] = steps[-1] if steps else None
        if message.progress is None and self._node_rank == 0:
            status = RankFiles(self._folder, 0).status()
            if status is not None:
                names = ("progress", "seconds", "version_changes", "spec_changes")
                details |= {name: getattr(status, name) for name in names}
        return Ending(ending.exit_code, message.model_copy(update=details))
