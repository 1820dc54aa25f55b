"""Measures how a distilled step scales over ranks on this machine, and predicts what a cluster of GPUs makes of it.

    make bench-scale                            # 1, 2 and 4 gloo ranks; about five minutes
    python -m benchmarks.bench.scale [--pair n-s] [--ranks 1 2 4] [--rounds 5]

Every rank computes with one thread and has the same number of images, so that more ranks have a larger batch. Where
there are more ranks than CPUs, they wait for each other, and images a second say little. Prints images a second,
milliseconds by phase, and the bytes that a step sends: as computed from the gradients' size, and as the loopback device
counted them. Leave the machine idle meanwhile. Writes build/bench/scale.json.

The prediction is arithmetic, no measurement: see `predicted`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.bench.candidates import NOMINAL_BATCH, PAIRS, Bench, Pair
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.training.parallel.collectives import process_group
from distill_trainer.training.parallel.environment import from_torchrun

LOOPBACK = Path("/sys/class/net/lo/statistics/tx_bytes")


@dataclass(frozen=True)
class Work:
    """What one rank does for its images in a step."""

    images: int
    gigaflops: float
    """Arithmetic: the teacher's forward pass, the student's forward and backward pass."""
    gradient_bytes: int
    """Gradients of student and projector, in fp32."""


@dataclass(frozen=True)
class Machines:
    """GPU nodes, as they are assumed."""

    title: str
    nodes: int
    gpus: int
    """A node."""
    teraflops: float
    """Reached by one GPU in such a step, not what its data sheet says."""
    inside: float
    """GB/s that a GPU sends to its neighbours within a node."""
    between: float
    """GB/s that a node sends to others."""


ASSUMED = (
    Machines("1 GPU", 1, 1, 40, 300, 0),
    Machines("1 x 8 GPUs, NVLink", 1, 8, 40, 300, 0),
    Machines("2 x 8 GPUs, 25 Gb/s between nodes", 2, 8, 40, 300, 3.1),
    Machines("2 x 8 GPUs, 200 Gb/s", 2, 8, 40, 300, 25),
    Machines("8 x 8 GPUs, 200 Gb/s", 8, 8, 40, 300, 25),
)
"""40 TFLOP/s: an eighth of an A100's data sheet for bf16, and less of newer ones'; small convolutions reach no more."""
GPU_IMAGES, GPU_IMGSZ = 16, 640
"""What a GPU is given, in the prediction."""


@dataclass(frozen=True)
class Prediction:
    """A step on GPUs."""

    compute: float
    """Seconds."""
    exchange: float
    """Seconds for the gradients, if nothing else happens at that time."""
    images_per_second: float
    """Of all GPUs, with an exchange that is hidden behind nothing."""
    efficiency: float
    """Images a second of all GPUs, over those of as many single ones."""


def ring_bytes(gradient_bytes: int, ranks: int) -> float:
    """Bytes that each rank sends when `ranks` of them sum their gradients in a ring."""
    return 2 * (ranks - 1) / ranks * gradient_bytes


def predicted(work: Work, machines: Machines) -> Prediction:
    """A step by arithmetic: FLOPs over the assumed rate, then gradients in rings within each node and over nodes.

    DDP starts the exchange during the backward pass, which hides a part of it. That is left out, and so are loading
    data, kernel launches, latency and the optimizer.
    """
    compute = work.gigaflops / 1000 / machines.teraflops
    exchange = ring_bytes(work.gradient_bytes, machines.gpus) / 1e9 / machines.inside
    if machines.nodes > 1:
        exchange += ring_bytes(work.gradient_bytes, machines.nodes) / 1e9 / machines.between
    gpus, seconds = machines.nodes * machines.gpus, compute + exchange
    return Prediction(compute, exchange, gpus * work.images / seconds, compute / seconds)


def worker(pair: Pair, rounds: int) -> None:
    """A rank: trains, and rank 0 prints a line of JSON for each round and the sizes of the work."""
    environment = from_torchrun(False)
    with process_group(environment, timeouts(1200)):
        everybody = replace(pair, batch=pair.batch * environment.world_size)
        bench = Bench(everybody, environment, compiled=False)
        run = bench.candidate("distilled", "fp32")
        steps = NOMINAL_BATCH // pair.batch
        run(2)
        for _ in range(rounds):
            sent, began = _sent(), time.perf_counter()
            ran = run(steps)
            seconds = (time.perf_counter() - began) / steps
            by_phase = {name: value / steps for name, value in ran.phases.items()}
            if environment.is_main:
                told = {"seconds": seconds, "phases": by_phase, "sent": (_sent() - sent) / steps}
                print(json.dumps(told), flush=True)
        if environment.is_main:
            print(json.dumps({"gradient_bytes": bench.gradient_bytes()}), flush=True)


def _sent() -> int:
    return int(LOOPBACK.read_text())


def measured(pair: str, ranks: int, rounds: int) -> tuple[list[dict[str, Any]], int]:
    """The rounds of `ranks` ranks, and the bytes of their gradients. Raises SystemExit if they fail."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command += ["-m", "benchmarks.bench.scale", "--pair", pair, "--rounds", str(rounds), "--worker"]
    ended = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = [json.loads(line) for line in ended.stdout.splitlines() if line.startswith("{")]
    if ended.returncode or len(lines) != rounds + 1:
        raise SystemExit(f"{ranks} ranks ended with code {ended.returncode}:\n{ended.stderr[-2000:]}")
    return lines[:-1], int(lines[-1]["gradient_bytes"])


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def table(pair: Pair, samples: dict[int, list[dict[str, Any]]], gradient_bytes: int) -> str:
    """What was measured."""
    lines = [
        f"{pair.title} a rank, fp32, one thread a rank, {os.cpu_count()} CPUs",
        f"{'ranks':>5} {'images/s':>9} {'s/step':>7} {'MB sent':>8} {'computed':>9}  milliseconds by phase",
    ]
    for ranks, rounds in samples.items():
        seconds = _median(one["seconds"] for one in rounds)
        sent, computed = _median(one["sent"] for one in rounds), ranks * ring_bytes(gradient_bytes, ranks)
        phases = {name: 1000 * _median(one["phases"][name] for one in rounds) for name in rounds[0]["phases"]}
        text = ", ".join(f"{name} {value:.0f}" for name, value in phases.items())
        rate = ranks * pair.batch / seconds
        lines.append(f"{ranks:5d} {rate:9.1f} {seconds:7.2f} {sent / 1e6:8.1f} {computed / 1e6:9.1f}  {text}")
    return "\n".join(lines)


def predictions(work: Work) -> str:
    """What is predicted, as a table."""
    lines = [
        f"PREDICTED, not measured: {work.images} images of {GPU_IMGSZ} px a GPU, {work.gigaflops:.0f} GFLOP, "
        f"{work.gradient_bytes / 1e6:.1f} MB of gradients",
        f"{'machines':36} {'compute ms':>10} {'exchange ms':>11} {'images/s':>9} {'efficiency':>10}",
    ]
    for machines in ASSUMED:
        found = predicted(work, machines)
        lines.append(
            f"{machines.title:36} {1000 * found.compute:10.2f} {1000 * found.exchange:11.2f} "
            f"{found.images_per_second:9.0f} {found.efficiency:10.0%}"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure, and predict."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, default="n-s")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    pair = PAIRS[args.pair]
    if args.worker:
        worker(pair, args.rounds)
        return
    samples: dict[int, list[dict[str, Any]]] = {}
    gradient_bytes = 0
    for ranks in args.ranks:
        samples[ranks], gradient_bytes = measured(args.pair, ranks, args.rounds)
        print(f"{ranks} ranks: {_median(one['seconds'] for one in samples[ranks]):.2f} s a step", flush=True)
    flops = Bench(pair, from_torchrun(False), compiled=False).gigaflops()
    grown = GPU_IMAGES / pair.batch * (GPU_IMGSZ / pair.imgsz) ** 2
    work = Work(GPU_IMAGES, (flops["teacher"] + flops["student"]) * grown, gradient_bytes)
    print(f"\n{table(pair, samples, gradient_bytes)}\n\n{predictions(work)}")
    file = ROOT / "build" / "bench" / "scale.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"pair": vars(pair), "samples": samples, "work": asdict(work)}, indent=2) + "\n")
    print(f"\nevery sample: {file.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
