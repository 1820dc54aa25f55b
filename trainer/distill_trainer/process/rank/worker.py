"""One rank: builds what surrounds the training, calls `train`, and reports how it ended.

Forked from the launcher's zygote at the order of torchrun's agent, which sets RANK, LOCAL_RANK, WORLD_SIZE, MASTER_ADDR
and MASTER_PORT.
"""

import faulthandler
import logging
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from distill_api.constants import METRICS_PORT, ExitCode
from distill_api.errors import TrainerError
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.status import Result
from distill_trainer.process.liveness.heartbeat import STACKS, Heartbeat, ask_for_stacks, read_heartbeat
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import Stall, Watchdog
from distill_trainer.process.outcome import FAILURE_EXIT_CODE, Ending, RankReport, ending_of
from distill_trainer.process.rank.files import FOLDER_VARIABLE, RankFiles, read_run
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.process.telemetry.console import CLEAR_LINE

if TYPE_CHECKING:
    from distill_trainer.checkpoint.checkpointer import Checkpointer
    from distill_trainer.process.rank.context import RankContext
    from distill_trainer.process.telemetry.metrics import TrainerMetrics
    from distill_trainer.process.telemetry.status import RankStatus

log = logging.getLogger(__name__)

Train = Callable[[RunConfig, "RankContext"], Result | None]

_COMMIT_SECONDS = 15.0
"""What a rank that fails gives its last snapshot to become durable."""
_TOGETHER_SECONDS = 20.0
"""What a stopped rank gives its siblings: torchrun's agent kills the others 30 s after the first has left."""


def main(train: Train) -> NoReturn:
    """Run this rank to its end. Never returns: the process leaves with its exit code, whatever native threads are
    still doing.
    """
    stop = StopFlag()
    stop.install()
    stop.follow_parent()
    faulthandler.enable()
    faulthandler.register(STACKS, all_threads=True)
    env = TorchrunEnv.from_environ()
    _configure_logging(env)
    Rank(read_run(os.environ), env, stop, Path(os.environ[FOLDER_VARIABLE])).work(train)


class Rank:
    """One rank from its start to its report."""

    def __init__(self, run: RunConfig, env: TorchrunEnv, stop: StopFlag, folder: Path) -> None:
        self._run = run
        self._env = env
        self._stop = stop
        self._folder = folder
        self._files = RankFiles(folder, env.local_rank)
        self._leaving = threading.Lock()
        self._status: RankStatus | None = None
        self._checkpointer: Checkpointer | None = None

    def work(self, train: Train) -> NoReturn:
        """Train, report, leave."""
        recovery = self._run.spec.recovery
        watchdog = Watchdog(
            timeout=timeouts(recovery.stall_timeout_seconds).watchdog,
            stopping_timeout=recovery.grace_period_seconds / 3,
            stop_requested=lambda: self._stop.requested,
            on_stall=self._stalled,
            heartbeat=Heartbeat(self._files.heartbeat_file),
        )
        watchdog.start()
        error: BaseException | None = None
        result: Result | None = None
        try:
            context = self._surround(watchdog)
            result = train(self._run, context)
            context.checkpointer.wait()
            context.status.update(state="done")
        except BaseException as caught:  # noqa: BLE001  every end is reported, a SystemExit too
            error = caught
        watchdog.end()
        ending = ending_of(error, result, rank=self._env.rank, attempt=self._run.attempt, phase=watchdog.phase)
        if ending.unexpected:
            log.error("training failed with an unexpected error", exc_info=error)
        elif ending.message.waited:
            log.error("another rank did not answer; this one waited here", exc_info=error)
        elif error is not None:
            log.info("this rank ends: %s: %s", ending.message.reason, ending.message.message)
        self._leave(ending)

    def _surround(self, watchdog: Watchdog) -> "RankContext":
        from distill_trainer.checkpoint.checkpointer import Checkpointer
        from distill_trainer.checkpoint.interval import FIRST_SECONDS
        from distill_trainer.checkpoint.store.storage import clear_temporaries
        from distill_trainer.process.rank.context import RankContext
        from distill_trainer.process.run_files import RunFiles
        from distill_trainer.process.telemetry.console import Console
        from distill_trainer.process.telemetry.metrics import TrainerMetrics
        from distill_trainer.process.telemetry.server import StatusServer
        from distill_trainer.process.telemetry.status import RankStatus

        run, env, interval = self._run, self._env, self._run.spec.checkpoint.interval_seconds
        metrics = TrainerMetrics(
            rank=env.rank,
            world_size=env.world_size,
            checkpoint_interval=FIRST_SECONDS if interval == "auto" else interval,
            versions={name: version(name) for name in ("torch", "ultralytics")},
        )
        self._status = status = RankStatus(
            job=run.job,
            attempt=run.attempt,
            rank=env.rank,
            world_size=env.world_size,
            images_per_second=lambda: metrics.images_per_second,
            moved_at=lambda: watchdog.moved_at,
            checkpoint_stalls=lambda: metrics.checkpoint_stall_seconds,
            copy=self._files.status_file,
        )
        server = StatusServer(
            METRICS_PORT + env.local_rank,
            {
                "/metrics": ("text/plain; version=0.0.4; charset=utf-8", metrics.exposition),
                "/status": ("application/json", status.to_json),
                "/healthz": ("text/plain", lambda: b"ok\n"),
            },
        )
        log.info("metrics and status are served at port %d", server.port)
        files = RunFiles.of(run)
        self._checkpointer = checkpointer = Checkpointer(
            files.checkpoints,
            uid=run.uid,
            attempt=run.attempt,
            keep=run.spec.checkpoint.keep,
            is_writer=env.rank == 0,
            metrics=_Observers(metrics, status),
        )
        if env.rank == 0:  # after the fence is raised, so that an older attempt cannot put its own in place
            for folder in (files.root, files.weights):
                clear_temporaries(folder)
        return RankContext(
            env=env,
            stop=self._stop,
            status=status,
            metrics=metrics,
            watchdog=watchdog,
            checkpointer=checkpointer,
            files=files,
            console=Console(enabled=env.rank == 0),
        )

    def _stalled(self, stall: Stall) -> None:
        """End a rank whose main thread is stuck; runs in the watchdog's thread."""
        if self._status is not None and stall.stopping:
            self._status.update(state="stopping")
        stepped = self._status is not None and self._status.read().steps_this_attempt > 0
        text = f"rank {self._env.rank} has not moved for {stall.seconds:.0f} s in phase {stall.phase}"
        if not stall.stopping or stall.seconds >= timeouts(self._run.spec.recovery.stall_timeout_seconds).collective:
            # No collective waits that long: whoever stopped, this rank was stuck before.
            reason, text = Reason.STALLED, f"{text}; all threads' stacks are in its log"
        else:
            reason, text = Reason.PEER_LOST, f"asked to stop, but {text}, as when another rank is gone"
        outcome, code = "failed", FAILURE_EXIT_CODE
        if stall.stopping and not stepped:
            outcome, code, reason = "stopped", int(ExitCode.STOPPED), Reason.STOPPED
        log.error("%s", text)
        self._ask_siblings_for_stacks()
        message = TerminationMessage.model_validate(
            {
                "outcome": outcome,
                "reason": reason,
                "message": text,
                "rank": self._env.rank,
                "attempt": self._run.attempt,
            }
        )
        seconds = timeouts(self._run.spec.recovery.stall_timeout_seconds).last_commit
        self._leave(Ending(code, message), seconds, alone=True)

    def _ask_siblings_for_stacks(self) -> None:
        """What the node's other ranks do now; they will not be there to be asked later."""
        ranks = set(range(self._env.local_world_size)) - {self._env.local_rank}
        state = [read_heartbeat(RankFiles(self._folder, rank).heartbeat_file) for rank in ranks]
        ask_for_stacks(sibling.pid for sibling in state if sibling is not None)

    def _leave(self, ending: Ending, commit_seconds: float = _COMMIT_SECONDS, alone: bool = False) -> NoReturn:
        """`alone`: without waiting for the node's other ranks, one of which may be the reason."""
        self._leaving.acquire()  # never released: the first of main thread and watchdog leaves for both
        at = time.time()
        if self._checkpointer is not None:
            try:
                self._checkpointer.wait(commit_seconds)
            except TrainerError as error:
                log.error("the last snapshot was not committed: %s", error.message)
        report = RankReport(exit_code=ending.exit_code, at=at, message=self._completed(ending.message))
        try:
            self._files.write_report(report)
        except OSError as error:
            log.error("the report of this end cannot be left in %s: %s", self._folder, error)
        signals = self._stop.signals
        if ending.exit_code == ExitCode.STOPPED and not alone:
            self._wait_for_siblings(signals)
        for child in multiprocessing.active_children():
            child.terminate()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
        # Interpreter and library destructors may abort or hang once collectives have failed.
        os._exit(ending.exit_code)

    def _completed(self, message: TerminationMessage) -> TerminationMessage:
        if self._status is None:
            return message
        status = self._status.read()
        step = status.progress.step
        committed = self._checkpointer.committed_step if self._checkpointer is not None else None
        if self._env.rank != 0 or status.resumed_from_step is None:
            committed = committed or None  # 0 only says that this rank has not looked
        return message.model_copy(
            update={
                "step": step,
                "committed_step": committed,
                "resumed_from_step": status.resumed_from_step,
                "version_changes": status.version_changes,
                "progress": status.progress if self._env.rank == 0 else None,
                "seconds": status.seconds if self._env.rank == 0 else None,
            }
        )

    def _wait_for_siblings(self, signals: int) -> None:
        """Leave together with the node's other ranks, unless another signal says that one of them is dead."""
        reports = [RankFiles(self._folder, local_rank).report_file for local_rank in range(self._env.local_world_size)]
        deadline = time.monotonic() + _TOGETHER_SECONDS
        while time.monotonic() < deadline and self._stop.signals == signals:
            if all(report.exists() for report in reports):
                return
            time.sleep(0.05)


class _Observers:
    """Tells metrics and status of checkpoints."""

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


def _configure_logging(env: TorchrunEnv) -> None:
    over_the_bar = CLEAR_LINE if sys.stderr.isatty() else ""
    logging.basicConfig(
        level=logging.INFO if env.rank == 0 else logging.WARNING,
        format=f"{over_the_bar}%(asctime)s rank {env.rank} %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,  # instead of the launcher's
    )
