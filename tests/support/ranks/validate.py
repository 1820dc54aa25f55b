"""A rank that validates weights on a data set, without training before it.

    RANK=0 WORLD_SIZE=2 … python -m tests.support.ranks.validate WEIGHTS FOLDER TASK REPORT [STOP]

REPORT.<RANK> is what this rank found; rank 0's has the pictures, too. STOP, as RANK:BATCH, asks that rank
alone to stop there.
"""

import hashlib
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch.distributed as dist
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.models.yolo.detect import DetectionValidator

from distill_api.spec.training import Training
from distill_local.trainer_process import free_port
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.evaluation.validate import Interrupted, validate
from distill_trainer.training.parallel.environment import Environment, from_torchrun
from tests.support.models import load_dataset
from tests.support.ranks.template import fork_ranks


def on_ranks(
    world_size: int, weights: Path, root: Path, task: str, report: Path, stop: tuple[int, int] | None = None
) -> list[Any]:
    """Validate on so many ranks; each rank's report. `stop`: a rank, and the batch at which it is asked to stop."""
    arguments = [weights, root, task, report, *([f"{stop[0]}:{stop[1]}"] if stop else [])]
    ranks = fork_ranks("tests.support.ranks.validate", [arguments] * world_size, free_port())
    assert [rank.wait(timeout=500) for rank in ranks] == [0] * world_size
    return [json.loads(Path(f"{report}.{rank}").read_text()) for rank in range(world_size)]


def found_by(environment: Environment, weights: str, root: Path, task: str, stop_at: int | None) -> dict[str, Any]:
    """What this rank finds; or, stopped, after how many batches."""
    model = YOLO(weights).model.float()
    model.args = get_cfg(overrides={"task": task})
    data = ValData(
        load_dataset(root / "digits.yaml", root, task),
        Training(imgsz=96, workers=2),
        imgsz=96,
        stride=32,
        batch=2,
        environment=environment,
    )
    done: list[int] = []
    computed: list[None] = []
    compute = DetectionValidator.get_stats
    DetectionValidator.get_stats = lambda validator: (computed.append(None), compute(validator))[1]
    figures = ValidationFigures()
    stop = None if stop_at is None else lambda: len(done) == stop_at
    try:
        metrics = validate(model, data, progress=lambda number, _: done.append(number), stop=stop, figures=figures)
    except Interrupted:
        return {"interrupted after": len(done)}
    found = asdict(metrics)
    del found["seconds"]
    if environment.rank > 0:
        assert (figures.confusion, computed) == (None, []), "only rank 0 computes"
        return found
    assert len(computed) == 1
    assert figures.confusion is not None
    pictures = {name: hashlib.sha256(content).hexdigest() for name, content in figures.of_rank.pictures.items()}
    return found | {"confusion": figures.confusion.matrix.tolist(), "pictures": pictures}


def main(weights: str, root: Path, task: str, report: str, stop: str | None = None) -> None:
    environment = from_torchrun(uses_cuda=False)
    stop_at = None
    if stop is not None:  # every rank may stop; one is asked to
        rank, batch = map(int, stop.split(":"))
        stop_at = batch if rank == environment.rank else -1
    if environment.world_size > 1:
        dist.init_process_group("gloo")
    found = found_by(environment, weights, root, task, stop_at)
    Path(f"{report}.{environment.rank}").write_text(json.dumps(found, sort_keys=True))
    if environment.world_size > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
