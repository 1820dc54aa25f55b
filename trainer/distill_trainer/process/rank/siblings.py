"""The other ranks of a node, as one rank sees them: through their files."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from distill_trainer.process.liveness.heartbeat import is_alive, read_heartbeat, request_stack_dumps
from distill_trainer.process.rank.files import RankFiles
from distill_trainer.process.rank.torchrun_env import TorchrunEnv

_SECONDS = 20.0
"""How long a stopped rank waits for its siblings: torchrun's agent kills them 30 s after the first one ends."""


@dataclass(frozen=True)
class Siblings:
    """The files of the other ranks of this node."""

    files: Sequence[RankFiles]

    @classmethod
    def of(cls, env: TorchrunEnv, folder: Path) -> Siblings:
        """Those of the rank with this environment. `folder`: that of the node's rank files."""
        ranks = (rank for rank in range(env.local_world_size) if rank != env.local_rank)
        return cls([RankFiles(folder, rank) for rank in ranks])

    def any_failed(self) -> bool:
        """Whether one has failed, so that nothing that this rank waits for will come."""
        return any(map(_failed, self.files))

    def dump_stacks(self) -> None:
        """Dump the stacks of those that still run."""
        beats = [read_heartbeat(files.heartbeat_file) for files in self.files]
        request_stack_dumps(beat.pid for beat in beats if beat is not None)

    def wait_for_reports(self, interrupted: Callable[[], bool]) -> None:
        """Wait until all have written reports, or until one of them will not."""
        deadline = time.monotonic() + _SECONDS
        while time.monotonic() < deadline and not interrupted():
            if all(files.report_file.exists() for files in self.files):
                return
            time.sleep(0.05)


def _failed(files: RankFiles) -> bool:
    """Whether a rank has ended without having been asked to, or without a word."""
    report = files.report()
    if report is not None:
        return report.message.outcome not in ("done", "stopped")
    beat = read_heartbeat(files.heartbeat_file)
    return beat is not None and not is_alive(beat.pid)
