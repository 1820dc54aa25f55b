"""The services that a rank's process provides to `train`."""

from dataclasses import dataclass

from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.process.liveness.stop import StopFlag
from distill_trainer.process.liveness.watchdog import Watchdog
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.process.run_files import RunFiles
from distill_trainer.process.telemetry.console import Console
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from distill_trainer.process.telemetry.status import RankStatus


@dataclass(frozen=True)
class RankContext:
    """Services of one rank. All work on every rank; what only rank 0 does is a no-op on the others."""

    env: TorchrunEnv
    stop: StopFlag
    status: RankStatus
    metrics: TrainerMetrics
    watchdog: Watchdog
    checkpointer: Checkpointer
    files: RunFiles
    console: Console

    def joined(self, execution: int | None) -> None:
        """The gang that this rank belongs to has this execution number; None leaves it unknown."""
        if execution is not None:
            self.status.update(execution=execution)
            self.metrics.execution(execution)
