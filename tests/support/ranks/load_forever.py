"""A trainer that only loads data: prints its workers' process ids, then a dot per step, until it is told to stop.

python -m tests.support.ranks.load_forever <data set folder> <workers> <steps, then raise>
"""

import multiprocessing
import sys
from pathlib import Path

import torch

from distill_api.spec.training import Training
from distill_trainer.data import Shards, TrainData, train
from tests.support.models import load_dataset

root, workers, steps = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
train.available_cpus = lambda: workers
data = TrainData(
    load_dataset(root / "digits.yaml", root, "detect"),
    Training(epochs=10**6, batch=2, workers=workers),
    imgsz=64,
    stride=32,
    shards=Shards(1, (0,)),
    device=torch.device("cpu"),
)
for number, _ in enumerate(data.batches(0, 10**6)):
    if number == 0:
        print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    if number == steps:
        raise SystemExit(3)
    print(".", flush=True)
