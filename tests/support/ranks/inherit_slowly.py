"""A rank that takes its first weights from a teacher, rank 0 slowly: real models, gloo and watchdog, no data set.

    RANK=0 WORLD_SIZE=2 … python -m tests.support.ranks.inherit_slowly SECONDS PAUSE REPORT

SECONDS is the job's stall timeout. Rank 0 rests for PAUSE seconds after each layer. REPORT.<RANK> has the digest of the
student's weights, or the error of the collective.
"""

import hashlib
import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from ultralytics.nn.tasks import DetectionModel

from distill_local.trainer_process import free_port
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import Watchdog
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.training import inheriting
from distill_trainer.training.parallel.collectives import process_group
from tests.support.ranks.template import fork_ranks


def on_ranks(world_size: int, report: Path, stall_timeout: float, pause: float) -> list[Any]:
    """Inherit on so many ranks; each rank's report."""
    arguments = [stall_timeout, pause, report]
    ranks = fork_ranks("tests.support.ranks.inherit_slowly", [arguments] * world_size, free_port())
    for rank in ranks:
        rank.wait(timeout=300)
    return [json.loads(Path(f"{report}.{rank}").read_text()) for rank in range(world_size)]


class Slow(inheriting._Progress):
    pause = 0.0

    def __call__(self) -> None:
        super().__call__()
        time.sleep(self.pause)


def main(stall_timeout: float, pause: float, report: Path) -> None:
    env, limits = TorchrunEnv.from_environ(), timeouts(stall_timeout)
    Slow.pause, inheriting._WORD_SECONDS = pause, limits.collective / 4
    inheriting._Progress = Slow  # type: ignore[misc]
    inheriting._calibration_images = lambda _: torch.rand(2, 3, 64, 64)
    torch.manual_seed(env.rank)  # so that only what is sent makes the weights equal
    student, teacher = (DetectionModel(f"yolo26{size}.yaml", nc=10, verbose=False) for size in "ns")
    watchdog = Watchdog(
        timeout=limits.watchdog, stopping_timeout=600, stop_requested=bool, on_stall=lambda stall: sys.exit(str(stall))
    )
    environment: Any = SimpleNamespace(
        world_size=env.world_size, is_main=env.is_main, device=torch.device("cpu"), backend="gloo"
    )
    setup: Any = SimpleNamespace(
        prepared=SimpleNamespace(student=student, teacher=teacher, inherited=object()),
        environment=environment,
        context=SimpleNamespace(watchdog=watchdog, stop=SimpleNamespace(requested=False)),
        spec=SimpleNamespace(student=SimpleNamespace(inherit=SimpleNamespace(channels="activations"))),
    )
    found: dict[str, Any] = {}
    try:
        with process_group(environment, limits):
            watchdog.start()
            started = time.monotonic()
            inheriting.inherit_weights(setup, SimpleNamespace(state=None))  # type: ignore[arg-type]
            found["seconds"] = time.monotonic() - started
        digest = hashlib.sha256()
        for value in student.state_dict().values():
            digest.update(value.numpy().tobytes())
        found |= {"digest": digest.hexdigest(), "images": setup.prepared.inherited.fitted.images}
    except RuntimeError as error:
        found = {"error": str(error)}
    Path(f"{report}.{env.rank}").write_text(json.dumps(found))


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), Path(sys.argv[3]))
