"""The process of one rank: builds the RankContext, calls `train`, and reports how it ended.

The zygote forks it for torchrun's agent, which sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT.
"""

import faulthandler
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from distill_api.constants import METRICS_PORT, ExitCode
from distill_api.errors import TrainerError
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.spec.rules.corrections import Change, definition
from distill_api.status import Result
from distill_trainer.process.liveness import flight_recorder
from distill_trainer.process.liveness.flight_recorder import Position
from distill_trainer.process.liveness.heartbeat import STACK_DUMP_SIGNAL, Heartbeat
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import Stall, Watchdog
from distill_trainer.process.outcome import FAILURE_EXIT_CODE, Ending, RankReport, ending_of
from distill_trainer.process.rank.files import FOLDER_VARIABLE, RankFiles, read_run_config
from distill_trainer.process.rank.siblings import Siblings
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.process.telemetry import logs, stderr
from distill_trainer.process.telemetry.logs import LogFacts

if TYPE_CHECKING:
    from distill_trainer.checkpoint.checkpointer import Checkpointer
    from distill_trainer.process.rank.context import RankContext
    from distill_trainer.process.telemetry.metrics import TrainerMetrics
    from distill_trainer.process.telemetry.status import RankStatus

log = logging.getLogger(__name__)

Train = Callable[[RunConfig, "RankContext"], Result | None]

_COMMIT_SECONDS = 15.0
"""How long a failing rank waits for its last commit."""


def main(train: Train) -> NoReturn:
    """Run this rank and exit the process with its exit code, even if native threads still run."""
    stop = StopFlag()
    stop.install()
    stop.stop_when_orphaned(stderr.give_back)
    faulthandler.enable()
    faulthandler.register(STACK_DUMP_SIGNAL, all_threads=True)
    env = TorchrunEnv.from_environ()
    facts = LogFacts(rank=env.rank)
    logs.configure(facts)
    run = read_run_config(os.environ)
    facts.job, facts.attempt = run.job, run.attempt
    Rank(run, env, stop, Path(os.environ[FOLDER_VARIABLE]), facts).run(train)


class Rank:
    """Runs one rank and reports how it ended."""

    def __init__(self, run: RunConfig, env: TorchrunEnv, stop: StopFlag, folder: Path, facts: LogFacts) -> None:
        self._log_facts = facts
        self._run = run
        self._env = env
        self._stop = stop
        self._folder = folder
        self._files = RankFiles(folder, env.local_rank)
        self._siblings = Siblings.of(env, folder)
        self._exit_lock = threading.Lock()
        self._status: RankStatus | None = None
        self._checkpointer: Checkpointer | None = None

    def run(self, train: Train) -> NoReturn:
        """Train, report and exit the process."""
        recovery = self._run.spec.recovery
        limits = timeouts(recovery.stall_timeout_seconds)
        watchdog = Watchdog(
            timeout=limits.watchdog,
            waiting_timeout=limits.collective,
            sibling_failed=self._siblings.any_failed,
            stopping_timeout=recovery.grace_period_seconds / 3,
            stop_requested=lambda: self._stop.requested,
            on_stall=self._stalled,
            heartbeat=Heartbeat(self._files.heartbeat_file),
        )
        watchdog.start()
        error: BaseException | None = None
        result: Result | None = None
        try:
            context = self._build_context(watchdog)
            result = train(self._run, context)
            context.checkpointer.wait()
            context.status.update(state="done")
        except BaseException as caught:  # noqa: BLE001  every end is reported, even SystemExit
            error = caught
        watchdog.end()
        ending = ending_of(error, result, rank=self._env.rank, attempt=self._run.attempt, phase=watchdog.phase)
        if ending.unexpected:
            log.error("training failed with an unexpected error", exc_info=error)
        elif ending.message.waited:
            log.error("timed out waiting for another rank", exc_info=error)
        elif error is not None:
            log.info("this rank ends: %s: %s", ending.message.reason, ending.message.message)
        self._exit(ending)

    def _build_context(self, watchdog: Watchdog) -> "RankContext":
        from distill_trainer.checkpoint.checkpointer import Checkpointer
        from distill_trainer.checkpoint.interval import INITIAL_SECONDS
        from distill_trainer.checkpoint.store.storage import clear_temporaries
        from distill_trainer.process.rank.context import RankContext
        from distill_trainer.process.run_files import RunFiles
        from distill_trainer.process.telemetry.console import Console
        from distill_trainer.process.telemetry.metrics import TrainerMetrics
        from distill_trainer.process.telemetry.server import serve
        from distill_trainer.process.telemetry.status import RankStatus

        run, env, interval = self._run, self._env, self._run.spec.checkpoint.interval_seconds
        metrics = TrainerMetrics(
            rank=env.rank,
            world_size=env.world_size,
            checkpoint_interval=INITIAL_SECONDS if interval == "auto" else interval,
            versions={name: version(name) for name in ("torch", "ultralytics")},
        )
        self._status = status = RankStatus(
            job=run.job,
            uid=run.uid,
            attempt=run.attempt,
            rank=env.rank,
            world_size=env.world_size,
            images_per_second=lambda: metrics.images_per_second,
            idle_seconds=lambda: watchdog.idle_seconds,
            checkpoint_stalls=lambda: metrics.checkpoint_stall_seconds,
            copy=self._files.status_file,
        )
        self._log_facts.position = status.position
        serve(METRICS_PORT + env.local_rank, metrics.exposition, status.to_json, run.local_address)
        files = RunFiles.of(run)
        self._checkpointer = checkpointer = Checkpointer(
            files.checkpoints,
            uid=run.uid,
            attempt=run.attempt,
            keep=run.spec.checkpoint.keep,
            committed_before=run.committed_step,
            is_writer=env.rank == 0,
            events=_CheckpointEvents(metrics, status),
            definition=definition(run.spec),
        )
        if env.rank == 0:  # after raising the fence, so that an older attempt can no longer rename its own
            for folder in (files.root, files.weights, files.tensorboard):
                clear_temporaries(folder)
        context = RankContext(
            env=env,
            stop=self._stop,
            status=status,
            metrics=metrics,
            watchdog=watchdog,
            checkpointer=checkpointer,
            files=files,
            console=Console(enabled=env.rank == 0, as_log=logs.as_json()),
        )
        if checkpointer.execution is not None:  # the other ranks get it with the state
            log.info("attempt %d is execution %d of job %s", run.attempt, checkpointer.execution, run.job)
            context.joined(checkpointer.execution)
        return context

    def _stalled(self, stall: Stall) -> None:
        """Exit because the main thread is stuck. Runs in the watchdog thread."""
        if self._status is not None and stall.stopping:
            self._status.update(state="stopping")
        stepped = self._status is not None and self._status.read().steps_this_attempt > 0
        text = f"rank {self._env.rank} made no progress for {stall.seconds:.0f} s in phase {stall.phase}"
        if stall.waiting is not None:
            reason = Reason.PEER_LOST
            text = f"rank {self._env.rank} timed out waiting for another rank in phase {stall.phase}: {stall.waiting}"
        elif not stall.stopping or stall.seconds >= timeouts(self._run.spec.recovery.stall_timeout_seconds).collective:
            # No collective waits that long, so this rank was stuck before the stop request.
            reason, text = Reason.STALLED, f"{text}; its log has the stacks of all threads"
        else:
            reason, text = Reason.PEER_LOST, f"{text} after a stop request, probably because another rank is gone"
        outcome, code = "failed", FAILURE_EXIT_CODE
        if stall.stopping and not stepped:
            outcome, code, reason = "stopped", int(ExitCode.STOPPED), Reason.STOPPED
        log.error("%s", text)
        if stall.waiting is None:  # else one of them is to be found as it is: a dump wakes a stopped process
            self._siblings.dump_stacks()
        message = TerminationMessage.model_validate(
            {
                "outcome": outcome,
                "reason": reason,
                "message": text,
                "rank": self._env.rank,
                "waited": stall.waiting is not None,
                "attempt": self._run.attempt,
            }
        )
        seconds = timeouts(self._run.spec.recovery.stall_timeout_seconds).last_commit
        self._exit(Ending(code, message), seconds, wait_for_siblings=False, position=flight_recorder.position())

    def _exit(
        self,
        ending: Ending,
        commit_seconds: float = _COMMIT_SECONDS,
        wait_for_siblings: bool = True,
        position: Position | None = None,
    ) -> NoReturn:
        """Wait for the last commit, write the report and exit the process."""
        self._exit_lock.acquire()  # never released: either the main thread or the watchdog exits
        at = time.time()
        if self._checkpointer is not None:
            try:
                self._checkpointer.wait(commit_seconds)
            except TrainerError as error:
                log.error("the last checkpoint was not committed: %s", error.message)
        message = self._with_progress(ending.message)
        report = RankReport(exit_code=ending.exit_code, at=at, message=message, position=position)
        try:
            self._files.write_report(report)
        except OSError as error:
            log.error("cannot write this rank's report to %s: %s", self._folder, error)
        requests = self._stop.requests
        if ending.exit_code == ExitCode.STOPPED and wait_for_siblings:
            # Another stop signal means that one has died.
            self._siblings.wait_for_reports(lambda: self._stop.requests != requests)
        for child in multiprocessing.active_children():
            child.terminate()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Destructors of the interpreter and of libraries may abort or hang after a failed collective.
        os._exit(ending.exit_code)

    def _with_progress(self, message: TerminationMessage) -> TerminationMessage:
        if self._status is None:
            return message
        status = self._status.read()
        step = status.progress.step
        committed = self._checkpointer.committed_step if self._checkpointer is not None else None
        if self._env.rank != 0 or status.resumed_from_step is None:
            committed = committed or None  # 0 here means that this rank has not read the volume
        return message.model_copy(
            update={
                "step": step,
                "committed_step": committed,
                "execution": status.execution,
                "resumed_from_step": status.resumed_from_step,
                "version_changes": status.version_changes,
                "spec_changes": status.spec_changes,
                "progress": status.progress if self._env.rank == 0 else None,
                "seconds": status.seconds if self._env.rank == 0 else None,
            }
        )


class _CheckpointEvents:
    """Records checkpoint events in metrics and status."""

    def __init__(self, metrics: "TrainerMetrics", status: "RankStatus") -> None:
        self._metrics, self._status = metrics, status

    def checkpoint_committed(self, step: int, at: datetime, seconds: float) -> None:
        self._metrics.checkpoint_committed(step, at, seconds)
        self._status.checkpoint_committed(step, at)

    def checkpoint_stalled(self, seconds: float) -> None:
        self._metrics.checkpoint_stalled(seconds)

    def checkpoint_failed(self) -> None:
        self._metrics.checkpoint_failed()

    def checkpoint_fell_back(self, _why: str) -> None:
        self._metrics.checkpoint_fell_back()
        self._status.checkpoint_fell_back()

    def versions_changed(self, changes: Mapping[str, tuple[str, str]]) -> None:
        self._status.versions_changed(changes)

    def spec_changed(self, changes: Iterable[Change]) -> None:
        self._status.spec_changed(changes)
