"""A rank for bench.startup: opens the data as the trainer of the checkout in PYTHONPATH does, and prints what it cost.

Run as a file, because the checkout may be an older one without it.
"""

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.distributed as dist

import distill_trainer  # noqa: F401  (first: it keeps ultralytics offline)
from distill_api.spec.training import Training
from distill_trainer.data import Shards, TrainData
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.training.evaluation.val_data import ValData
from distill_trainer.training.parallel.environment import from_torchrun

try:
    from distill_trainer.data.config import read_dataset
    from distill_trainer.training.parallel.labels import SharedLabels
except ImportError:  # a checkout in which each rank lists the files, and one rank of a node scans the labels
    from distill_trainer.data import load_dataset  # type: ignore[attr-defined]

    SharedLabels = None  # type: ignore[assignment,misc]

LIMITS = timeouts(1800)


def memory(pid: int | str, field: str) -> int:
    """A sum of /proc/<pid>/smaps_rollup, in bytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.split(":")[0] in field.split("+"))


def open_dataset(root: Path, results: Path) -> Any:
    """The data set, as this checkout's trainer opens it."""
    if SharedLabels is None:
        return load_dataset(root / "data.yaml", root, "detect")
    context: Any = SimpleNamespace(
        env=TorchrunEnv.from_environ(),
        files=SimpleNamespace(labels=results / "labels"),
        watchdog=SimpleNamespace(beat=lambda _: None),
        stop=SimpleNamespace(requested=False),
        checkpointer=SimpleNamespace(check_fence=lambda: None),
    )
    return SharedLabels(context, LIMITS).open(read_dataset(root / "data.yaml", root, "detect"))


def look_at_all(*datasets: Any) -> None:
    """Access every label, as an epoch does."""
    for dataset in datasets:
        for number in range(len(dataset)):
            dataset.labels[number]["cls"].sum()


def with_worker(*datasets: Any) -> int:
    """Pss of this rank and a forked worker, in bytes, when both have looked at all labels."""
    ready, end = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        look_at_all(*datasets)
        os.write(ready[1], b".")
        os.read(end[0], 1)
        os._exit(0)
    look_at_all(*datasets)
    os.read(ready[0], 1)
    dist.barrier()
    found = memory("self", "Pss") + memory(child, "Pss")
    dist.barrier()
    os.write(end[1], b".")
    os.waitpid(child, 0)
    return found


def main(root: Path, results: Path) -> None:
    """Measure."""
    environment = from_torchrun(uses_cuda=False)
    dist.init_process_group("gloo")
    dist.barrier()
    pss, uss = memory("self", "Pss"), memory("self", "Private_Clean+Private_Dirty")
    dist.barrier()
    started, cpu = time.perf_counter(), sum(os.times()[:4])
    dataset = open_dataset(root, results)
    training = Training(imgsz=64, batch=4 * environment.world_size, workers=0)
    shards = Shards.of_rank(environment.rank, environment.world_size, environment.world_size)
    train = TrainData(dataset, training, imgsz=64, stride=32, shards=shards, device=torch.device("cpu"))
    val = ValData(dataset, training, imgsz=64, stride=32, batch=8, environment=environment)
    seconds, cpu = time.perf_counter() - started, sum(os.times()[:4]) - cpu
    dist.barrier()
    found = {
        "digest": dataset.digest,
        "seconds": seconds,
        "cpu": cpu,
        "pss": memory("self", "Pss") - pss,
        "uss": memory("self", "Private_Clean+Private_Dirty") - uss,
    }
    dist.barrier()
    found["pss_with_worker"] = with_worker(train.dataset, val.dataset) - pss
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
