"""A rank that opens the data set as the trainer does, and nothing else: real torch store, watchdog and files.

    RANK=0 WORLD_SIZE=2 … python -m tests.support.ranks.open_labels ROOT RESULTS SECONDS PAUSE REPORT

SECONDS is the job's stall timeout. Rank 0 rests for PAUSE seconds whenever it reports progress. REPORT.<RANK> is what
the rank found: the digest, an error, or what the watchdog saw.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from distill_api.errors import TrainerError
from distill_local.trainer_process import free_port
from distill_trainer.data.config import read_dataset
from distill_trainer.data.labels import listing
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import Stall, Watchdog
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.training.parallel import labels
from tests.support.ranks.template import fork_ranks


def on_ranks(world_size: int, root: Path, results: Path, report: Path, stall_timeout: float, pause: float) -> list[Any]:
    """Open the data set on so many ranks; each rank's report."""
    arguments = [root, results, stall_timeout, pause, report]
    ranks = fork_ranks("tests.support.ranks.open_labels", [arguments] * world_size, free_port())
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * world_size
    return [json.loads(Path(f"{report}.{rank}").read_text()) for rank in range(world_size)]


def main(root: Path, results: Path, stall_timeout: float, pause: float, report: Path) -> None:
    env, limits, started = TorchrunEnv.from_environ(), timeouts(stall_timeout), 0.0
    patch = pytest.MonkeyPatch()  # which refuses a name that is no more; the process ends with its changes
    patch.setattr(listing, "_THREADS", 1)
    patch.setattr(listing, "_SHARE", 1)
    patch.setattr(labels, "_PROGRESS_SECONDS", 0.0)

    def write(found: dict[str, Any]) -> None:
        content = json.dumps(found | {"after": time.monotonic() - started})
        Path(f"{report}.{env.rank}").write_text(content)

    def leave() -> NoReturn:
        """End; rank 0 at last: torchrun's agent, whose store outlives the ranks, is not here."""
        deadline = time.monotonic() + 120
        while env.is_main and not all(Path(f"{report}.{rank}").exists() for rank in range(env.world_size)):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os._exit(0)

    def stalled(stall: Stall) -> None:
        write({"waited for": stall.waiting, "phase": stall.phase})
        leave()

    watchdog = Watchdog(
        timeout=limits.watchdog,
        waiting_timeout=limits.collective,
        stopping_timeout=600,
        stop_requested=bool,
        on_stall=stalled,
    )
    context: Any = SimpleNamespace(
        env=env,
        files=SimpleNamespace(labels=results),
        watchdog=watchdog,
        stop=SimpleNamespace(requested=False),
        checkpointer=SimpleNamespace(check_fence=lambda: None),
    )
    shared = labels.SharedLabels(context, limits)
    if env.is_main:
        progress = shared._progress

        def slow(done: int) -> None:
            progress(done)
            time.sleep(pause)

        shared._progress = slow  # type: ignore[method-assign]
    assert shared._store is not None
    shared._store.add("here", 1)
    while shared._store.add("here", 0) < env.world_size:  # Python takes seconds to start on a busy machine
        time.sleep(0.05)
    watchdog.start()
    started = time.monotonic()
    try:
        dataset = shared.open(read_dataset(root / "digits.yaml", root, "detect"))
        write({"digest": dataset.digest, "images": len(dataset.train)})
    except TrainerError as error:
        write({"error": type(error).__name__, "reason": error.reason, "message": error.message})
    leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
