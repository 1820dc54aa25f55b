"""Trains runs in lanes: one thread each, at the lowest priority. What has a row is never trained again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from benchmarks import ROOT
from benchmarks.accuracy.rows import Row, append_row, by_digest, read_rows
from benchmarks.accuracy.run import Run, in_order, ready
from benchmarks.accuracy.trainers.request import ANSWER, LOG, Request


class Lanes:
    """Trains what has no row yet. An interrupt ends the trainers; the same command resumes."""

    def __init__(self, work: Path, table: Path) -> None:
        """`work`: folder for data sets, weights and unfinished runs. `table`: the CSV of the rows."""
        self._work, self._table = work.absolute(), table.absolute()  # trainers run in folders of their own
        self._change, self._generating = threading.Condition(), threading.Lock()
        self._running: dict[str, subprocess.Popen[bytes] | None] = {}
        self._failed: dict[str, str] = {}
        self._stopping = False

    def train(self, runs: Sequence[Run], lanes: int = 2) -> dict[str, Row]:
        """Train the runs and what they need. Returns all rows by digest. Raises SystemExit if a run failed."""
        pending = in_order(runs)
        rows = by_digest(read_rows(self._table))
        # Weights that another run needs may be gone although their figures are kept.
        done = {run.digest for run in pending if run.digest in rows and self._has_weights(run, pending)}
        print(f"{len(pending)} runs, {len(done)} done before; figures in {self._table}", flush=True)
        handlers = {number: signal.signal(number, _interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
        threads = [threading.Thread(target=self._lane, args=(pending, done)) for _ in range(lanes)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.5)
        except KeyboardInterrupt:
            raise SystemExit("stopped; run the same command again to resume") from None
        finally:
            self._stop()
            for thread in threads:
                thread.join()
            for number, handler in handlers.items():
                signal.signal(number, handler)
        if self._failed:
            raise SystemExit("\n".join(self._failed.values()))
        return by_digest(read_rows(self._table))

    def _has_weights(self, run: Run, pending: Sequence[Run]) -> bool:
        needed = any(run.digest == other.digest for one in pending for other in one.needs())
        return not needed or (self._work / "models" / f"{run.digest}.pt").exists()

    def _lane(self, pending: Sequence[Run], done: set[str]) -> None:
        while True:
            with self._change:
                while (run := ready(pending, done, self._running.keys() | self._failed.keys())) is None:
                    if self._stopping or not self._running:  # nothing that ends could make another run ready
                        return
                    self._change.wait()
                if self._stopping:
                    return
                self._running[run.digest] = None
            failure = self._train(run)
            with self._change:
                del self._running[run.digest]
                if failure is None:
                    done.add(run.digest)
                else:
                    self._failed[run.digest] = failure
                self._change.notify_all()

    def _train(self, run: Run) -> str | None:
        """Train one run and append its row. Returns what went wrong."""
        try:
            with self._generating:
                request = Request.of(run, self._work)
        except OSError as error:
            return f"{run.arm}, seed {run.seed}: its data set cannot be made: {error}"
        folder = Path(request.folder)
        answer = folder / ANSWER
        if not answer.exists():
            self._process(run, request.write(), folder / LOG)
        if not answer.exists():
            return f"{run.arm}, seed {run.seed} has no figures; see {folder / LOG}, and run the same command again"
        row = Row.of(run, json.loads(answer.read_text()))
        with self._change:
            append_row(self._table, row)
        answer.unlink()
        print(f"{run.arm:28} seed {run.seed}  mAP50-95 {row.map:.4f}  {row.cpu_seconds:.0f} CPU s", flush=True)
        return None

    def _process(self, run: Run, request: Path, log: Path) -> None:
        with log.open("ab") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.accuracy.trainers.one", str(request)],
                cwd=ROOT,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                start_new_session=True,
            )
            self._running[run.digest] = process
            if self._stopping:
                _end(process)
            process.wait()

    def _stop(self) -> None:
        self._stopping = True
        with self._change:
            processes = [process for process in self._running.values() if process is not None]
            self._change.notify_all()
        for process in processes:
            _end(process)


def _interrupt(_signum: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ask the run's processes to end; this project's trainer commits first."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
