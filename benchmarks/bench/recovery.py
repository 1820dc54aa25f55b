"""Measures the cost of checkpoints, and how long a killed run takes until its next new step.

    python -m benchmarks.bench.recovery [--saves 15] [--recoveries 5] [--imgsz 320]

First: how long a checkpoint blocks training and how long its commit takes, compared with the time of a step and with
Ultralytics' save_model for the same model. Then: runs of two ranks are killed completely and restarted, and the time
from the start to the end of the first new step is measured by phase. Prints both tables and writes
build/bench/recovery.json with every sample.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from benchmarks import ROOT
from benchmarks.bench.timed_trainer import TIMES
from benchmarks.small_run import Attempt, Local, end_all, make_volumes

TRAINING = {"batch": 8, "imgsz": 64, "optimizer": "SGD", "workers": 0, "plots": False, "nbs": 8}


class Saves:
    """A model in training that can be saved by this project and by Ultralytics."""

    def __init__(self, student: str, teacher: str, imgsz: int, folder: Path) -> None:
        import torch
        from ultralytics.utils.torch_utils import ModelEMA

        from distill_trainer.models.precision import Precision
        from distill_trainer.models.student import neck_channels
        from distill_trainer.training.distillation.losses.registry import LOSSES
        from distill_trainer.training.distillation.projector import Projector
        from distill_trainer.training.distillation.task import OBJECTIVE, DistillTask, Term
        from distill_trainer.training.distillation.teacher import Teacher
        from distill_trainer.training.optimizer import TrainingPlan, build_optimizer
        from distill_trainer.training.saving.state import TrainingProgress, TrainingState
        from tests.support.models import CPU, build, preprocessed, shard_batch, teach

        self.student = build(f"{student}.yaml", optimizer="SGD", imgsz=imgsz)
        whole = teach(build(f"{teacher}.yaml", seed=1))
        projector = Projector(neck_channels(self.student), neck_channels(whole))
        task = DistillTask(self.student, projector, [Term(LOSSES["sl2"])]).to(memory_format=torch.channels_last).train()
        plan = TrainingPlan(epochs=5, steps_per_epoch=10, batch=8, images=80, classes=3)
        optimizer, _ = build_optimizer(task, self.student.args, plan)
        self.state = TrainingState(
            task, ModelEMA(self.student), optimizer, Precision.of("fp32", CPU).scaler(), TrainingProgress()
        )
        cut, batch = Teacher(whole, CPU, torch.float32), preprocessed(shard_batch(8, imgsz=imgsz))

        def step() -> None:
            losses = task(batch, cut.infer(batch["img"]), 6.0)
            losses[OBJECTIVE].backward()
            optimizer.step()
            optimizer.zero_grad()
            self.state.ema.update(self.student)

        self.step: Callable[[], None] = step
        self._folder = folder

    def ours(self, directory: Path, saves: int) -> dict[str, list[float]]:
        """Seconds of blocking and of committing, for each of `saves` checkpoints."""
        from distill_trainer.checkpoint.checkpointer import Checkpointer

        persisted: list[float] = []
        events: Any = SimpleNamespace(
            checkpoint_committed=lambda _step, _at, seconds: persisted.append(seconds),
            checkpoint_stalled=lambda _: None,
            checkpoint_failed=lambda: None,
            checkpoint_fell_back=lambda _: None,
        )
        checkpointer = Checkpointer(directory, uid="uid", attempt=1, keep=3, is_writer=True, events=events)
        stalls = []
        for number in range(1, saves + 1):
            stalls.append(checkpointer.snapshot(self.state.collect(), number))
            checkpointer.wait()
        checkpointer.close()
        return {"stall": stalls, "commit": persisted, "megabytes": [_size(directory / f"step-{saves}") / 1e6]}

    def theirs(self, folder: Path, saves: int) -> dict[str, list[float]]:
        """Seconds of Ultralytics' save_model, which blocks its training."""
        from ultralytics.engine.trainer import BaseTrainer

        folder.mkdir()
        trainer: Any = SimpleNamespace(
            ema=self.state.ema, model=self.student, optimizer=self.state.optimizer, scaler=self.state.scaler,
            epoch=0, epochs=5, best_fitness=1.0, fitness=0.0, args=self.student.args, metrics={}, save_period=-1,
            stopper=SimpleNamespace(best_fitness=0.0, best_epoch=0), csv=folder / "results.csv", wdir=folder,
            last=folder / "last.pt", best=folder / "best.pt",
        )  # fmt: skip
        trainer.read_results_csv = lambda: BaseTrainer.read_results_csv(trainer)
        seconds = []
        for _ in range(saves):
            began = time.perf_counter()
            BaseTrainer.save_model(trainer)
            seconds.append(time.perf_counter() - began)
        return {"stall": seconds, "megabytes": [trainer.last.stat().st_size / 1e6]}


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.iterdir())


def measure_saves(pair: tuple[str, str], saves: int, imgsz: int, root: Path) -> dict[str, Any]:
    """Measure a step and both kinds of checkpoints for one pair of models."""
    import torch
    from ultralytics.utils import LOGGER

    LOGGER.setLevel(logging.WARNING)
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    made = Saves(*pair, imgsz, root)
    made.step()
    steps = []
    for _ in range(5):
        began = time.perf_counter()
        made.step()
        steps.append(time.perf_counter() - began)
    found: dict[str, Any] = {"step": steps, "own": made.ours(root / "own", saves)}
    found["ultralytics"] = made.theirs(root / "theirs", saves)
    memory = Path("/dev/shm")
    if memory.is_dir():
        with tempfile.TemporaryDirectory(dir=memory) as place:
            found["own, /dev/shm"] = made.ours(Path(place) / "own", saves)
    return found


def measure_recoveries(count: int, root: Path) -> list[dict[str, float]]:
    """Seconds by phase from the start of an attempt to the end of its first step, after each of `count` kills."""
    make_volumes(root, images=400)
    local = Local(root, root / "results", {"training": {**TRAINING, "epochs": 50}})
    samples = []
    try:
        for number in range(count + 1):  # the first one does not resume
            times = root / f"times-{number}"
            began = time.time()
            command = [sys.executable, "-m", "benchmarks.bench.timed_trainer"]
            attempt = local.start(f"attempt-{number}", command, **{TIMES: str(times)})
            before = (local.committed() or [0])[-1]
            while (local.committed() or [0])[-1] <= before + 3:
                if attempt.process.poll() is not None:
                    raise SystemExit(f"an attempt ended with {attempt.process.returncode}: {attempt.log_text()}")
                time.sleep(0.05)
            kill(attempt)
            if number:
                samples.append(by_phase(began, times))
    finally:
        end_all()
    return samples


def kill(attempt: Attempt) -> None:
    """Kill launcher and ranks with SIGKILL, and wait until all processes of the attempt have ended."""
    writers, others = attempt.writers(), [*attempt.launcher(), *attempt.ranks()]
    for process in others:
        process.signal(signal.SIGKILL)
    attempt.process.wait()
    while any(process.alive for process in (*writers, *others)):  # the writer finishes its commit
        time.sleep(0.02)


def measure_goodput(period: float, disruptions: int, root: Path) -> dict[str, Any]:
    """Measure goodput with `checkpoint.intervalSeconds: auto`, when all processes are killed every `period` seconds
    and restarted at once: the kept steps times the duration of an undisturbed step, divided by the wall time.
    """
    make_volumes(root, images=400)
    spec = {"training": {**TRAINING, "epochs": 1000}, "checkpoint": {"intervalSeconds": "auto"}}
    local = Local(root, root / "results", spec)
    rates, kept, lost, restarts = [], [], [], []
    try:
        began = time.monotonic()
        for number in range(disruptions):
            before = (local.committed() or [0])[-1]
            attempt = local.start(f"goodput-{number}")
            steady = _wait_for_step(attempt, before + 1)
            restarts.append(steady[0] - attempt.began)
            while time.monotonic() - attempt.began < period:
                time.sleep(0.2)
            last = _wait_for_step(attempt, 0)
            kill(attempt)
            rates.append((last[1] - steady[1]) / (last[0] - steady[0]))
            kept.append(local.committed()[-1] - before)
            lost.append(last[1] - local.committed()[-1])
        wall = time.monotonic() - began
    finally:
        end_all()
    return {
        "period": period, "wall": wall, "steps per second": rates, "steps kept": kept, "steps lost": lost,
        "seconds to the first step": restarts, "goodput": sum(kept) / statistics.median(rates) / wall,
    }  # fmt: skip


def _wait_for_step(attempt: Attempt, least: int) -> tuple[float, int]:
    """Wait until the attempt has finished `least` steps; return the time and the step."""
    while True:
        step = attempt.status().get("progress", {}).get("step")
        if step is not None and step >= least:
            return time.monotonic(), int(step)
        if attempt.process.poll() is not None:
            raise SystemExit(f"an attempt ended with {attempt.process.returncode}: {attempt.log_text()}")
        time.sleep(0.05)


def by_phase(began: float, times: Path) -> dict[str, float]:
    """Seconds by phase until the end of the first step."""
    notes = [json.loads(line) for line in times.read_text().splitlines()]
    after = next(index for index, (_, what) in enumerate(notes) if what == "optimizer") + 1
    spent: dict[str, float] = {"launcher: start Python": notes[0][0] - began}
    for (at, what), (then, _) in pairwise(notes[: after + 1]):
        what = "first step" if what in ("data", "teacher", "forward", "backward", "optimizer") else what
        spent[what] = spent.get(what, 0.0) + then - at
    return spent | {"total": notes[after][0] - began}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--saves", type=int, default=15)
    parser.add_argument("--recoveries", type=int, default=5)
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--period", type=float, default=120, help="seconds between the disruptions for goodput")
    parser.add_argument("--disruptions", type=int, default=3)
    args = parser.parse_args()
    report: dict[str, Any] = {"settings": vars(args), "saves": {}}
    print(f"{'':22}{'step':>10}{'own stall':>12}{'commit':>10}{'Ultralytics':>13}{'stall/step':>12}{'own/Ultr.':>11}")
    for pair in (("yolo26n", "yolo26s"), ("yolo26s", "yolo26m")):
        with tempfile.TemporaryDirectory(prefix="distill-recovery-") as folder:
            found = measure_saves(pair, args.saves, args.imgsz, Path(folder))
        report["saves"][" <- ".join(pair)] = found
        print_saves(" <- ".join(pair), found)
    with tempfile.TemporaryDirectory(prefix="distill-recovery-") as folder:
        report["recoveries"] = measure_recoveries(args.recoveries, Path(folder))
    print_recoveries(report["recoveries"])
    if args.disruptions:
        with tempfile.TemporaryDirectory(prefix="distill-recovery-") as folder:
            report["goodput"] = measure_goodput(args.period, args.disruptions, Path(folder))
        print_goodput(report["goodput"])
    out = ROOT / "build" / "bench" / "recovery.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")


def print_saves(title: str, found: Mapping[str, Any]) -> None:
    """Print one line per pair: medians in milliseconds."""
    step, own, theirs = (
        statistics.median(v) for v in (found["step"], found["own"]["stall"], found["ultralytics"]["stall"])
    )
    commit = statistics.median(found["own"]["commit"])
    cells = [f"{1000 * value:.0f} ms" for value in (step, own, commit, theirs)]
    print(f"{title:22}{cells[0]:>10}{cells[1]:>12}{cells[2]:>10}{cells[3]:>13}{own / step:12.3f}{own / theirs:11.3f}")


def print_recoveries(samples: list[dict[str, float]]) -> None:
    """Print one line per phase: median and range in seconds."""
    print(f"\n{'recovery by phase':38}{'median':>9}{'least':>8}{'most':>8}")
    for name in samples[0]:
        seconds = [sample.get(name, 0.0) for sample in samples]
        print(f"{name:38}{statistics.median(seconds):8.2f}s{min(seconds):7.2f}s{max(seconds):7.2f}s")


def print_goodput(found: Mapping[str, Any]) -> None:
    """Print the measured goodput, and the goodput computed from its parts for other periods."""
    rate, restart = statistics.median(found["steps per second"]), statistics.median(found["seconds to the first step"])
    lost = statistics.mean(found["steps lost"]) / rate
    print(
        f"\ngoodput with everything killed every {found['period']:.0f} s, {len(found['steps kept'])} times: "
        f"{found['goodput']:.3f} measured; a disruption costs {restart:.1f} s of restart and {lost:.1f} s of lost work"
    )
    for minutes in (2, 5, 10):
        print(f"  one in {minutes:2} minutes: {1 - (restart + lost) / (60 * minutes):.3f} by these costs")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
