"""Measures training steps: plain, distilled by this project, and distilled by Ultralytics, in fp32 and bf16.

    make bench-step                       # both pairs; about ten minutes
    python -m benchmarks.bench.step [--pair n-s] [--rounds 5] [--compile] [--format fp32]

A round has as many steps as one optimizer step needs (64 images, Ultralytics' nominal batch), on a GPU six times as
many. Each trainer's steps are driven as its own loop does (driven.py). The rounds of the candidates are interleaved;
each candidate has its own process and runs while the others wait. Prints medians of the rounds with their spread, the
ratios within a round, milliseconds by phase, and peak memory. Writes build/bench/step.json with every sample. All
candidates train on the same recorded batches; loader.py measures data loading. Ultralytics' candidates use its models,
DistillationModel, optimizer, scaler, clipping and EMA in the same way as its training loop. "two ranks" is this
project's distilled step on two DDP ranks (gloo) with one thread and half of the batch each, which Ultralytics does not
support on CPUs. The teacher's precision is auto, decided once for all candidates.
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
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from benchmarks import ROOT
from benchmarks.bench.candidates import DEVICE, FORMATS, PAIRS, ULTRALYTICS_KINDS, Bench, Pair
from benchmarks.bench.driven import use_profile
from distill_api.spec.fields import Recovery
from distill_trainer.models.precision import DTYPES, WORTHWHILE, teacher_format
from distill_trainer.process.launcher.agent import gpu_variables
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.machine.allocator import keep_freed_memory
from distill_trainer.process.machine.cpus import available_cpus, threads_per_rank
from distill_trainer.training.parallel.collectives import process_group
from distill_trainer.training.parallel.environment import Environment, from_torchrun

CANDIDATES = (
    *(f"{kind} {format_}" for format_ in FORMATS for kind in ("plain", "distilled", *ULTRALYTICS_KINDS)),
    *(f"two-ranks {format_}" for format_ in FORMATS),
)
OPTIMIZER_STEPS = {"cpu": 1, "cuda": 6}
"""In a round."""
SAME, BEST = "distilled / Ultralytics, fp32", "best / best"
BARS = {True: (BEST, 0.75), False: (SAME, 0.85)}
"""The ratio that counts and its bar, by whether the machine multiplies bf16 WORTHWHILE times as fast as fp32."""
Samples = dict[str, list[dict[str, Any]]]
"""Rounds by candidate."""


class Candidate:
    """A candidate in a separate process, so that memory and allocator settings are not shared."""

    def __init__(self, pair: Pair, name: str, teacher: str, compiled: bool) -> None:
        command = [sys.executable]
        if name.startswith("two-ranks"):
            command += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        asked = {"pair": vars(pair), "name": name, "teacher": teacher}
        command += ["-m", "benchmarks.bench.step", "--worker", json.dumps(asked)]
        if compiled:
            command.append("--compile")
        threads = threads_per_rank(2 if name.startswith("two-ranks") else 1, available_cpus())
        environ = os.environ | {"OMP_NUM_THREADS": str(threads)}  # importing Ultralytics has set it to 1 here
        if DEVICE.type == "cuda":
            environ |= gpu_variables(Recovery().stall_timeout_seconds, os.environ)
        self._process = subprocess.Popen(
            command, env=environ, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self) -> dict[str, Any]:
        """Run one round while the other candidates wait. Returns seconds and phases per step, and peak MiB so far."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("{"):
                result: dict[str, Any] = json.loads(line)
                return result
        raise SystemExit(f"a candidate ended with code {self._process.wait()}")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def work(pair: Pair, name: str, teacher: str, compiled: bool) -> None:
    """The process of a Candidate: runs one round for each line on rank 0's stdin."""
    kind, format_, *profile = name.split()
    environment, own = from_torchrun(DEVICE.type == "cuda"), kind not in ULTRALYTICS_KINDS
    use_profile(" ".join(profile), DEVICE, own=own)
    if own and DEVICE.type == "cpu":
        keep_freed_memory()
    with process_group(environment, timeouts(1200)):
        run = Bench(pair, environment, compiled, DTYPES[teacher]).candidate(kind, format_)
        steps = pair.steps * OPTIMIZER_STEPS[DEVICE.type]
        while _next_round(environment):
            _synchronise()
            began = time.perf_counter()
            ran = run(steps)
            _synchronise()
            seconds = (time.perf_counter() - began) / steps
            by_phase = {phase: value / steps for phase, value in ran.phases.items()}
            peak = torch.tensor(_peak_mib())
            if dist.is_initialized():
                dist.all_reduce(peak)
            if environment.is_main:
                print(json.dumps({"seconds": seconds, "phases": by_phase, "peak_mib": float(peak)}), flush=True)


def _peak_mib() -> float:
    """Peak memory of this process, on a GPU of its allocator. (getrusage would return the parent's peak if that is
    higher.)
    """
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_reserved() / 2**20
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1024


def _next_round(environment: Environment) -> bool:
    """Wait for a request; whether to run another round, the same on every rank."""
    requested = torch.tensor(int(environment.is_main and bool(sys.stdin.readline())))
    if dist.is_initialized():
        dist.broadcast(requested, src=0)
    return bool(requested)


def measure(pair: Pair, names: tuple[str, ...], rounds: int, teacher: str, compiled: bool = False) -> Samples:
    """Run all rounds of all candidates, interleaved."""
    candidates: dict[str, Candidate] = {}
    samples: Samples = {name: [] for name in names}
    try:
        if DEVICE.type == "cuda":  # whose machines have CPUs for all of them
            candidates |= {name: Candidate(pair, name, teacher, compiled) for name in names}
        for name in names:  # else one after the other, because starting loads the machine too
            if name not in candidates:
                candidates[name] = Candidate(pair, name, teacher, compiled)
            print(f"  warming up: {name} {candidates[name].run()['seconds']:.2f} s per step", flush=True)
        for turn in range(rounds):
            shift = turn % len(names)  # another candidate is first in each round
            for name in names[shift:] + names[:shift]:
                samples[name].append(candidates[name].run())
            print(f"  round {turn + 1} of {rounds}", flush=True)
    finally:
        for candidate in candidates.values():
            candidate.close()
    return samples


def _synchronise() -> None:
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def ratio(samples: Samples, ours: str, theirs: str) -> list[float]:
    """ours / theirs of each round."""
    return [a["seconds"] / b["seconds"] for a, b in zip(samples[ours], samples[theirs], strict=True)]


def best(samples: Samples, *kinds: str) -> str:
    """The fastest candidate of these kinds."""
    names = [name for name in samples if name.split()[0] in kinds]
    return min(names, key=lambda name: _median(samples[name], "seconds"))


def _median(rounds: Iterable[dict[str, Any]], key: str) -> float:
    return statistics.median(sample[key] for sample in rounds)


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{statistics.median(ordered):.3f} ({ordered[0]:.3f} to {ordered[-1]:.3f})"


def _phases(rounds: list[dict[str, Any]]) -> dict[str, float]:
    """Median milliseconds by phase. Step's forward phase is split into student, and projector with losses."""
    phases = {name: 1000 * statistics.median(r["phases"][name] for r in rounds) for name in rounds[0]["phases"]}
    if "student forward" in phases:
        phases["projector, losses"] = phases.pop("forward") - phases["student forward"]
    return phases


def report(pair: Pair, samples: Samples) -> dict[str, list[float]]:
    """Print the pair's tables; return its ratios by round."""
    print(f"\n{pair.title}\n\n  {'seconds per step':<20}  {'median (min to max)':<25}  peak MiB")
    for name, rounds in samples.items():
        print(f"  {name:<20}  {_spread(r['seconds'] for r in rounds):<25}  {_median(rounds, 'peak_mib'):8.0f}")
    print("\n  milliseconds by phase")
    for name, rounds in samples.items():
        print(f"  {name:<20}  " + ", ".join(f"{phase} {value:.0f}" for phase, value in _phases(rounds).items()))
    best_own, best_theirs = best(samples, "distilled", "two-ranks"), best(samples, "ultralytics")
    pairs = {
        SAME: ("distilled fp32", "ultralytics fp32"),
        "distilled / Ultralytics, bf16": ("distilled bf16", "ultralytics bf16"),
        f"{BEST} ({best_own}, {best_theirs})": (best_own, best_theirs),
        "distilled / plain, fp32": ("distilled fp32", "plain fp32"),
        "plain / Ultralytics plain, fp32": ("plain fp32", "ultralytics-plain fp32"),
        "plain / Ultralytics plain, bf16": ("plain bf16", "ultralytics-plain bf16"),
    }
    ratios = {title: ratio(samples, *names) for title, names in pairs.items() if samples.keys() >= set(names)}
    print("\n  ratio of a round, median (min to max)")
    for title, values in ratios.items():
        print(f"  {title}: {_spread(values)}")
    format_ = next(name.removeprefix("distilled ") for name in samples if name.startswith("distilled"))
    title = f"peak memory, distilled / plain, {format_}"
    memory = _median(samples[f"distilled {format_}"], "peak_mib") / _median(samples[f"plain {format_}"], "peak_mib")
    print(f"  {title}: {memory:.3f}")
    return ratios | {title: [memory]}


def verdict(ratios: dict[str, list[float]], rates: dict[str, float]) -> str:
    """Whether the bar for this kind of machine is met. `rates`: multiplications in fp32 and bf16."""
    title, bar = BARS[rates["bf16"] >= WORTHWHILE * rates["fp32"]]
    found = [values for name, values in ratios.items() if name.startswith(title)]
    if not found:
        return f"bar on this machine: {title} at most {bar}; not measured"
    median = statistics.median(found[0])
    return f"bar on this machine: {title} at most {bar}: {median:.3f}, {'met' if median <= bar else 'missed'}"


def main() -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, action="append")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--format", choices=FORMATS, help="of the students' forward passes; by default both")
    parser.add_argument("--compile", action="store_true", help="training.compile on this project's side")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        asked = json.loads(args.worker)
        work(Pair(**asked["pair"]), asked["name"], asked["teacher"], args.compile)
        return
    candidates = tuple(name for name in CANDIDATES if args.format is None or name.endswith(args.format))
    if args.compile:  # which takes minutes for a single process
        candidates = tuple(name for name in candidates if not name.startswith("two-ranks"))
    results: dict[str, Any] = {
        "machine": {
            "device": torch.cuda.get_device_name() if DEVICE.type == "cuda" else _processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "teacher": teacher_format(DEVICE),
            "gflops_per_second": {name: multiplication_rate(FORMATS[name] or torch.float32) for name in FORMATS},
        },
        "settings": vars(args),
    }
    print(", ".join(f"{key} {value}" for key, value in results["machine"].items()))
    alone = from_torchrun(DEVICE.type == "cuda")
    for name in args.pair or PAIRS:
        work_of = Bench(PAIRS[name], alone, compiled=False).gigaflops()
        print(
            f"{PAIRS[name].title}; GFLOP a step: " + ", ".join(f"{k} {v:.0f}" for k, v in work_of.items()), flush=True
        )
        samples = measure(PAIRS[name], candidates, args.rounds, results["machine"]["teacher"], args.compile)
        ratios = report(PAIRS[name], samples)
        print(f"  {verdict(ratios, results['machine']['gflops_per_second'])}")
        results[name] = {"pair": vars(PAIRS[name]), "gflop": work_of, "samples": samples, "ratios": ratios}
    file = ROOT / "build" / "bench" / "step.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(results, indent=2) + "\n")
    print(f"\nevery sample: {file.relative_to(ROOT)}")


def multiplication_rate(dtype: torch.dtype) -> float:
    """GFLOP/s of large matrix products: about the maximum for a convolution on this machine."""
    size = 2048
    matrix = torch.rand(size, size, device=DEVICE).to(dtype)
    seconds = []
    for _ in range(7):
        _synchronise()
        began = time.perf_counter()
        matrix @ matrix
        _synchronise()
        seconds.append(time.perf_counter() - began)
    return 2 * size**3 / statistics.median(seconds) / 1e9


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.backends.cpu.get_cpu_capability()}"


if __name__ == "__main__":
    main()
