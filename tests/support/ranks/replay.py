"""A gang that goes through many short runs, each by the trainer's own `train`, without starting a process for each.

    RANK=0 … python -m tests.support.ranks.replay ROOT PLAN

PLAN is a JSON list of scenarios. ROOT holds the volumes. A scenario runs on its first `world` ranks. It may begin with
one committed step of another job, as after a kill right after that commit, and it may be asked to stop: at a step, or
in the validation after one. Every due commit is made and kept, whatever the clock says.
"""

import hashlib
import json
import os
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from distill_api.errors import Stopped
from distill_api.pod.run import Directories, RunConfig
from distill_trainer import train
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.data import TrainData
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.liveness.watchdog import Watchdog
from distill_trainer.process.rank.context import RankContext
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.process.run_files import RunFiles
from distill_trainer.process.telemetry.console import Console
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from distill_trainer.process.telemetry.status import RankStatus
from distill_trainer.training import build
from distill_trainer.training.device.results import Pending
from distill_trainer.training.step import Step
from tests.support.checkpoints.opener import Events
from tests.support.models import job_spec
from tests.support.ranks.template import fork_ranks


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
    late: bool = False
    """Whether results are read as on GPUs, when the next step is queued."""
    port: int = 0
    spec: dict[str, Any] = field(default_factory=dict)


def replay(root: Path, scenarios: list[Scenario]) -> None:
    """Go through all scenarios, in order."""
    ports = free_ports(len(scenarios))
    plan = [asdict(scenario) | {"port": port} for scenario, port in zip(scenarios, ports, strict=True)]
    (root / "plan.json").write_text(json.dumps(plan))
    world = max(scenario.world for scenario in scenarios)
    ranks = fork_ranks("tests.support.ranks.replay", [[root, root / "plan.json"]] * world, ports[0])
    try:
        while any(rank.poll() is None for rank in ranks) and not any(rank.poll() for rank in ranks):
            time.sleep(0.1)
        assert [rank.poll() for rank in ranks] == [0] * len(ranks)
    finally:
        for rank in ranks:
            rank.kill()


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nobody uses, all different."""
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def record_of(root: Path, job: str, attempt: int, rank: int) -> dict[str, Any]:
    """What a rank has noted: by step, the digests of its samples and the losses of all."""
    return dict(json.loads((root / f"records/{job}-{attempt}-{rank}.json").read_text()))


class Notes:
    """What a rank sees while it trains."""

    def __init__(self) -> None:
        self.finished = 0
        self.samples: dict[int, list[str]] = {}
        self.results: dict[int, Pending] = {}
        self.teacher = ""

    def forget(self) -> None:
        """Begin anew, for the next scenario."""
        self.finished, self.samples, self.results, self.teacher = 0, {}, {}, ""

    def listen(self) -> None:
        """Put an ear between the loop, its data and its step."""
        batches, run = TrainData.batches, Step.run

        def noted(data: Any, start: int, end: int) -> Iterator[list[dict[str, Any]]]:
            for step, mine in enumerate(batches(data, start, end), start):
                images = [image.numpy().tobytes() for batch in mine for image in batch["img"]]
                self.samples[step] = [hashlib.sha256(image).hexdigest() for image in images]
                yield mine

        def run_and_note(step: Any, number: int, *arguments: Any) -> Any:
            result = run(step, number, *arguments)
            self.results[number], self.finished = result, number + 1
            self.teacher = str(step._teacher.dtype) if step._teacher is not None else self.teacher
            return result

        TrainData.batches, Step.run = noted, run_and_note  # type: ignore[method-assign,assignment]


class Patient(Checkpointer):
    """Waits where the real one would leave a commit out, so that what is committed depends on the steps alone."""

    busy = False


class Asked(StopFlag):
    """A stop that is asked for while `wish` says so."""

    def __init__(self, wish: Callable[[], bool]) -> None:
        super().__init__()
        self._wish = wish

    @property
    def requested(self) -> bool:
        return self._wish()


def play(root: Path, scenario: Scenario, rank: int, notes: Notes) -> None:
    """This rank's part of a scenario."""
    run = run_config(root, scenario)
    files = RunFiles.of(run)
    if rank == 0 and scenario.begins_as is not None:
        _begin_as(root / "checkpoints" / scenario.begins_as[0], scenario.begins_as[1], files.root)
    world = str(scenario.world)
    os.environ |= {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_PORT": str(scenario.port)}
    notes.forget()
    context = context_of(run, scenario, files, notes)
    stopped = None
    try:
        train.train(run, context)
        context.checkpointer.wait()
    except Stopped as error:
        stopped = error.step
    context.checkpointer.close()
    assert (stopped is None) is (scenario.stop_at is None), f"{scenario.job}: stopped at {stopped}"
    found = {
        "samples": notes.samples,
        "losses": {step: result.read().losses for step, result in notes.results.items()},
        "teacher": notes.teacher,
        "resumed": context.status.read().resumed_from_step,
        "execution": context.status.read().execution,
        "stopped": stopped,
    }
    (root / "records" / f"{scenario.job}-{scenario.attempt}-{rank}.json").write_text(json.dumps(found))


def run_config(root: Path, scenario: Scenario) -> RunConfig:
    """The attempt, on the volumes below `root`."""
    volumes = {name: str(root / name) for name in ("checkpoints", "data", "models")}
    return RunConfig(
        job=scenario.job,
        uid="uid",
        attempt=scenario.attempt,
        nodes=1,
        processes_per_node=scenario.world,
        rendezvous=f"127.0.0.1:{scenario.port}",
        spec=job_spec(**scenario.spec),
        directories=Directories(**volumes),
    )


def context_of(run: RunConfig, scenario: Scenario, files: RunFiles, notes: Notes) -> RankContext:
    """The surroundings of this process's rank."""
    env = TorchrunEnv.from_environ()
    watchdog = Watchdog(timeout=600, stopping_timeout=600, stop_requested=bool, on_stall=lambda _: None)

    def wants_to_stop() -> bool:
        if scenario.stop_at is None or env.rank != scenario.world - 1:
            return False
        if scenario.stop_in_validation:
            return notes.finished >= scenario.stop_at and watchdog.phase == "validation"
        # The wish travels with the step that is about to begin.
        return notes.finished >= scenario.stop_at - 1 and watchdog.phase != "validation"

    return RankContext(
        env=env,
        stop=Asked(wants_to_stop),
        status=RankStatus(
            job=run.job,
            uid=run.uid,
            attempt=run.attempt,
            rank=env.rank,
            world_size=env.world_size,
            images_per_second=lambda: None,
        ),
        metrics=TrainerMetrics(rank=env.rank, world_size=env.world_size, checkpoint_interval=60, versions={}),
        watchdog=watchdog,
        checkpointer=Patient(
            files.checkpoints, uid=run.uid, attempt=run.attempt, keep=100, is_writer=env.is_main, events=Events()
        ),
        files=files,
        console=Console(enabled=False),
    )


def _begin_as(other: Path, step: int, own: Path) -> None:
    (own / "checkpoints").mkdir(parents=True)
    shutil.copytree(other / f"checkpoints/step-{step}", own / f"checkpoints/step-{step}")
    shutil.copytree(other / "weights", own / "weights")
    for name in ("results.csv", "teacher.json"):  # rows of later epochs, too: they are to be replaced
        shutil.copy(other / name, own / name)


def main(root: Path, plan: Path) -> None:
    """This rank's way through the plan."""
    torch.set_num_threads(1)
    rank, notes = int(os.environ["RANK"]), Notes()
    # Only rank 0 commits, and so is the only one that reads the newest result for that.
    train.commit_interval = lambda *_, **__: lambda: 0.0 if rank == 0 else 1e9  # type: ignore[attr-defined]
    step_builder = build._step_builder
    notes.listen()
    (root / "records").mkdir(exist_ok=True)
    for content in json.loads(plan.read_text()):
        scenario = Scenario(**content)
        late = scenario.late or None
        build._step_builder = lambda *given, late=late: replace(step_builder(*given), late=late)  # type: ignore[misc]
        if rank < scenario.world:
            play(root, scenario, rank, notes)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
