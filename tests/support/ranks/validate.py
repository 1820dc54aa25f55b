"""One rank of a validation: validate_rank.py <weights.pt> <data set folder> <task> <report.json> [stop at batch]

RANK and WORLD_SIZE are set as torchrun sets them; `stop at batch` asks this rank alone to stop there.
"""

import hashlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import torch.distributed as dist
from ultralytics import YOLO
from ultralytics.cfg import get_cfg

from distill_api.spec.training import Training
from distill_trainer.data import load_dataset
from distill_trainer.outputs.figures import ValidationFigures
from distill_trainer.training.evaluation.validate import Interrupted, ValData, validate
from distill_trainer.training.parallel.environment import from_torchrun

weights, root, task, report = sys.argv[1], Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
stop_at = int(sys.argv[5]) if len(sys.argv) > 5 else None
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
if world_size > 1:
    dist.init_process_group("gloo")
model = YOLO(weights).model.float()
model.args = get_cfg(overrides={"task": task})
data = ValData(
    load_dataset(root / "digits.yaml", root, task),
    Training(imgsz=96, workers=2),
    imgsz=96,
    stride=32,
    batch=2,
    environment=from_torchrun(uses_cuda=False),
)
done: list[int] = []
figures = ValidationFigures()
try:
    found = asdict(
        validate(
            model,
            data,
            progress=lambda number, _: done.append(number),
            stop=None if stop_at is None else lambda: len(done) == stop_at,
            figures=figures,
        )
    )
    del found["seconds"]
    assert figures.confusion is not None
    found["confusion"] = figures.confusion.matrix.tolist()
    found["pictures"] = {
        name: hashlib.sha256(content).hexdigest() for name, content in figures.of_rank.pictures.items()
    }
except Interrupted:
    found = {"interrupted after": len(done)}
report.write_text(json.dumps(found, sort_keys=True))
if world_size > 1:
    dist.destroy_process_group()
