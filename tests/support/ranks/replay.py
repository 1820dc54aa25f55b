"""A gang that goes through many short runs, each by the trainer's own `train`, without starting a process for each.

    RANK=0 … python trainer_replay.py ROOT PLAN

PLAN is a JSON list of scenarios. ROOT holds the volumes. A scenario runs on its first `world` ranks. It may begin with
one committed step of another job, as after a kill right after that commit, and it may be asked to stop: at a step, or
in the validation after one. Every due commit is made and kept, whatever the clock says.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from distill_api.pod.run import Directories, RunConfig


@dataclass(frozen=True)
class Scenario:
    """One attempt of one job."""

    job: str
    world: int
    attempt: int = 1
    begins_as: tuple[str, int] | None = None
    """Job and committed step whose checkpoint is all that there is."""
    stop_at: int | None = None
    """Finished steps after which the last rank asks to stop."""
    stop_in_validation: bool = False
    """It asks in the validation that follows, instead."""
    port: int = 0
    spec: dict[str, Any] = field(default_factory=dict)


def replay(root: Path, scenarios: list[Scenario]) -> None:
    """Go through all scenarios, in order."""
    sockets = [socket.socket() for _ in scenarios]
    for probe in sockets:
        probe.bind(("127.0.0.1", 0))
    plan = [
        asdict(scenario) | {"port": probe.getsockname()[1]} for scenario, probe in zip(scenarios, sockets, strict=True)
    ]
    for probe in sockets:
        probe.close()
    (root / "plan.json").write_text(json.dumps(plan))
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(root), str(root / "plan.json")],
            env=os.environ | {"RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0", "OMP_NUM_THREADS": "1"},
        )
        for rank in range(max(scenario.world for scenario in scenarios))
    ]
    try:
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            time.sleep(0.1)
        assert [rank.poll() for rank in ranks] == [0] * len(ranks)
    finally:
        for rank in ranks:
            rank.kill()


def record_of(root: Path, job: str, attempt: int, rank: int) -> dict[str, Any]:
    """What a rank has noted: by step, the digests of its samples and the losses of all."""
    return dict(json.loads((root / f"records/{job}-{attempt}-{rank}.json").read_text()))


class Notes:
    """What a rank sees while it trains."""

    def __init__(self) -> None:
        self.finished = 0
        self.samples: dict[int, list[str]] = {}
        self.losses: dict[int, dict[str, float]] = {}

    def listen(self) -> None:
        """Put an ear between the loop, its data and its step."""
        from distill_trainer.data import TrainData
        from distill_trainer.training.step import Step

        batches, run = TrainData.batches, Step.run

        def noted(data: Any, start: int, end: int) -> Iterator[list[dict[str, Any]]]:
            for step, mine in enumerate(batches(data, start, end), start):
                images = [image.numpy().tobytes() for batch in mine for image in batch["img"]]
                self.samples[step] = [hashlib.sha256(image).hexdigest() for image in images]
                yield mine

        def run_and_note(step: Any, number: int, *arguments: Any) -> Any:
            result = run(step, number, *arguments)
            self.losses[number], self.finished = result.losses, number + 1
            return result

        TrainData.batches, Step.run = noted, run_and_note  # type: ignore[method-assign,assignment]


def play(root: Path, scenario: Scenario, rank: int, notes: Notes) -> None:
    """This rank's part of a scenario."""
    from distill_api.errors import Stopped
    from distill_trainer.checkpoint.checkpointer import Checkpointer
    from distill_trainer.process.liveness.stop import StopFlag
    from distill_trainer.process.liveness.watchdog import Watchdog
    from distill_trainer.process.rank.context import RankContext
    from distill_trainer.process.run_files import RunFiles
    from distill_trainer.process.telemetry.console import Console
    from distill_trainer.process.telemetry.metrics import TrainerMetrics
    from distill_trainer.process.telemetry.status import RankStatus
    from distill_trainer.train import train
    from trainer_support import job_spec

    class Patient(Checkpointer):
        """Waits where the real one would leave a commit out, so that what is committed depends on the steps alone."""

        busy = False

    class Asked(StopFlag):
        requested = property(lambda _: wants_to_stop())  # type: ignore[assignment]

    spec = job_spec(**scenario.spec)
    run = RunConfig(
        job=scenario.job,
        uid="uid",
        attempt=scenario.attempt,
        nodes=1,
        processes_per_node=scenario.world,
        rendezvous=f"127.0.0.1:{scenario.port}",
        spec=spec,
        directories=Directories(
            checkpoints=str(root / "checkpoints"), data=str(root / "data"), models=str(root / "models")
        ),
    )
    files = RunFiles.of(run)
    if rank == 0 and scenario.begins_as is not None:
        _begin_as(root / "checkpoints" / scenario.begins_as[0], scenario.begins_as[1], files.root)
    world = str(scenario.world)
    os.environ |= {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(scenario.port)}
    watchdog = Watchdog(timeout=600, stopping_timeout=600, stop_requested=bool, on_stall=lambda _: None)
    metrics = TrainerMetrics(rank=rank, world_size=scenario.world, checkpoint_interval=60, versions={})
    status = RankStatus(
        job=run.job, attempt=run.attempt, rank=rank, world_size=scenario.world, images_per_second=lambda: None
    )
    notes.finished, notes.samples, notes.losses = 0, {}, {}

    def wants_to_stop() -> bool:
        if scenario.stop_at is None or rank != scenario.world - 1:
            return False
        if scenario.stop_in_validation:
            return notes.finished >= scenario.stop_at and watchdog.phase == "validation"
        # The wish travels with the step that is about to begin.
        return notes.finished >= scenario.stop_at - 1 and watchdog.phase != "validation"

    checkpointer = Patient(
        files.checkpoints, uid=run.uid, attempt=run.attempt, keep=100, is_writer=rank == 0, metrics=_Silent()
    )
    context = RankContext(
        rank=rank,
        local_rank=rank,
        world_size=scenario.world,
        stop=Asked(),
        status=status,
        metrics=metrics,
        watchdog=watchdog,
        checkpointer=checkpointer,
        files=files,
        console=Console(enabled=False),
    )
    stopped = None
    try:
        train(run, context)
        checkpointer.wait()
    except Stopped as error:
        stopped = error.step
    checkpointer.close()
    assert (stopped is None) is (scenario.stop_at is None), f"{scenario.job}: stopped at {stopped}"
    found = {
        "samples": notes.samples,
        "losses": notes.losses,
        "resumed": status.read().resumed_from_step,
        "stopped": stopped,
    }
    (root / "records" / f"{scenario.job}-{scenario.attempt}-{rank}.json").write_text(json.dumps(found))


class _Silent:
    def __getattr__(self, _: str) -> Callable[..., None]:
        return lambda *_: None


def _begin_as(other: Path, step: int, own: Path) -> None:
    (own / "checkpoints").mkdir(parents=True)
    shutil.copytree(other / f"checkpoints/step-{step}", own / f"checkpoints/step-{step}")
    shutil.copytree(other / "weights", own / "weights")
    for name in ("results.csv", "teacher.json"):  # rows of later epochs, too: they are to be replaced
        shutil.copy(other / name, own / name)


def main(root: Path, plan: Path) -> None:
    """This rank's way through the plan."""
    import torch

    from distill_trainer import train

    train.interval_of = lambda *_, **__: lambda: 0.0  # type: ignore[attr-defined]
    torch.set_num_threads(1)
    rank, notes = int(os.environ["RANK"]), Notes()
    notes.listen()
    (root / "records").mkdir(exist_ok=True)
    for content in json.loads(plan.read_text()):
        scenario = Scenario(**content)
        if rank < scenario.world:
            play(root, scenario, rank, notes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
