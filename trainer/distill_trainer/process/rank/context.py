"""What surrounds the training in a rank: handed to `train` as one object."""

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
    """One rank's surroundings. All of it is usable on every rank; what concerns rank 0 alone is silent elsewhere."""

    env: TorchrunEnv
    stop: StopFlag
    status: RankStatus
    metrics: TrainerMetrics
    watchdog: Watchdog
    checkpointer: Checkpointer
    files: RunFiles
    console: Console
