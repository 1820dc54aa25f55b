"""The trainer's collectives: a rank a GPU over NCCL; with one GPU one rank over NCCL, and two over gloo.

RANK=0 … python -m benchmarks.gpucheck.collectives BACKEND FILE     # a rank
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks.bench.candidates import Bench, Pair
from benchmarks.gpucheck.findings import Findings, Place
from distill_local.trainer_process import free_port
from distill_trainer.process.rank.torchrun_env import TorchrunEnv
from distill_trainer.training.parallel.collectives import any_rank, broadcast_buffers, broadcast_state
from distill_trainer.training.parallel.environment import Environment
from tests.support.ranks.start import start_ranks

MEBIBYTES = 64
"""Size of the timed all-reduce: a large student's gradients."""
STEPS = 4


def check(place: Place, found: Findings) -> None:
    """Run the collectives with every backend that the machine has room for."""
    if not place.cuda:
        _gang(2, "gloo", place, found)
    elif place.gpus == 1:
        _gang(1, "nccl", place, found)
        _gang(2, "gloo", place, found)
    else:
        _gang(place.gpus, "nccl", place, found)


def _gang(ranks: int, backend: str, place: Place, found: Findings) -> None:
    name = f"{backend}, {ranks} rank{'s' if ranks > 1 else ''}"
    files = [place.folder / f"{backend}-{rank}.json" for rank in range(ranks)]
    processes = start_ranks("benchmarks.gpucheck.collectives", [[backend, file] for file in files], free_port())
    codes = [process.wait() for process in processes]
    found.expect(not any(codes), f"{name}: ranks ended with exit codes {codes}")
    told = [json.loads(file.read_text()) for file in files if file.exists()]
    if len(told) < ranks:
        return
    found.expect(all(one["right"] for one in told), f"{name}: a collective gave a wrong result")
    found.figure(f"{name}: all-reduce of {MEBIBYTES} MiB, GB/s", told[0]["gigabytes"])
    if told[0]["weights"] is not None:
        alike = len({one["weights"] for one in told}) == 1
        found.expect(alike, f"{name}: after {STEPS} distilled steps the ranks' weights differ")
        found.figure(f"{name}: ms a distilled step", told[0]["milliseconds"])


def rank(backend: str, file: Path) -> None:
    """One rank's part."""
    env = TorchrunEnv.from_environ()
    device = torch.device("cpu")
    if torch.cuda.is_available():
        device = torch.device("cuda", env.local_rank % torch.cuda.device_count())
        torch.cuda.set_device(device)
    environment = Environment(**vars(env), device=device)
    dist.init_process_group(backend, device_id=device if backend == "nccl" else None)
    result: dict[str, object] = {
        "right": _right(environment),
        "gigabytes": _gigabytes(device),
        "weights": None,
        "milliseconds": None,
    }
    if backend == environment.backend and environment.world_size > 1:  # as in a job
        result |= _steps(environment)
    file.write_text(json.dumps(result))
    dist.destroy_process_group()


def _right(environment: Environment) -> bool:
    device, number, ranks = environment.device, environment.rank, environment.world_size
    total = torch.full((5,), float(number + 1), device=device)
    dist.all_reduce(total)
    sent: dict[str, Any] = {"a": torch.arange(6.0).view(2, 3), "b": [torch.ones(3, dtype=torch.float16)], "step": 7}
    got = broadcast_state(sent if environment.is_main else None, device)
    norm = torch.nn.BatchNorm1d(2).to(device)
    norm.running_mean.fill_(float(number + 3))  # type: ignore[union-attr]
    broadcast_buffers(norm)
    return (
        bool((total == ranks * (ranks + 1) / 2).all())
        and got is not None
        and bool((got["a"] == sent["a"]).all())
        and (got["step"], got["b"][0].dtype) == (7, torch.float16)
        and bool((norm.running_mean == 3).all())  # type: ignore[union-attr]
        and any_rank(number == ranks - 1, device)
        and not any_rank(False, device)
    )


def _gigabytes(device: torch.device) -> float:
    """GB of gradients that are summed in a second."""
    buffer = torch.ones(MEBIBYTES << 18, device=device)
    seconds = []
    for _ in range(6):
        dist.barrier()
        began = time.perf_counter()
        dist.all_reduce(buffer)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return buffer.nbytes / 1e9 / min(seconds)


def _steps(environment: Environment) -> dict[str, object]:
    """Distilled steps under DDP: a digest of the weights after them, and the time of the last one."""
    imgsz = 320 if environment.device.type == "cuda" else 64
    bench = Bench(Pair("yolo26n.yaml", "yolo26s.yaml", imgsz, 4 * environment.world_size), environment, compiled=False)
    run = bench.candidate("distilled", "fp32")
    seconds = 0.0
    for _ in range(STEPS):
        began = time.perf_counter()
        run(1)
        if environment.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - began
    return {"weights": bench.digest(), "milliseconds": 1000 * seconds}


if __name__ == "__main__":
    rank(sys.argv[1], Path(sys.argv[2]))
