"""What surrounds the training in a rank: handed to `train` as one object."""

from dataclasses import dataclass

from distill_trainer.board import StatusBoard
from distill_trainer.checkpoint.checkpointer import Checkpointer
from distill_trainer.console import Console
from distill_trainer.metrics import TrainerMetrics
from distill_trainer.results import RunFiles
from distill_trainer.stop import StopFlag
from distill_trainer.watchdog import Watchdog


@dataclass(frozen=True)
class Runtime:
    """One rank's surroundings. All of it is usable on every rank; what concerns rank 0 alone is silent elsewhere."""

    rank: int
    local_rank: int
    world_size: int
    stop: StopFlag
    board: StatusBoard
    metrics: TrainerMetrics
    watchdog: Watchdog
    checkpointer: Checkpointer
    files: RunFiles
    console: Console
