"""Measures what `recipe: auto` costs: all steps of a training together, over those of a plain one.

    python -m benchmarks.bench.recipe [--imgsz 128] [--batch 8] [--rounds 9]

The step with its teacher and the plain step take turns, in one process and with one thread, and CPU time is counted, so
that other work on the machine hardly matters. A training has the former until distillation ends, and the latter from
there on.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import torch

from benchmarks.bench.candidates import DEVICE, NOMINAL_BATCH, PAIRS, Bench
from distill_api.spec.recipe import AUTO
from distill_trainer.models.precision import DTYPES, teacher_format
from distill_trainer.process.machine.allocator import keep_freed_memory
from distill_trainer.training.parallel.environment import from_torchrun


def main() -> None:
    """Measure, and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pair", choices=PAIRS, default="n-s")
    parser.add_argument("--imgsz", type=int, default=128)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    pair, teacher = replace(PAIRS[args.pair], imgsz=args.imgsz, batch=args.batch), teacher_format(DEVICE)
    bench = Bench(pair, from_torchrun(False), compiled=False, teacher_dtype=DTYPES[teacher])
    steps = {kind: bench.candidate(kind, "fp32") for kind in ("plain", "auto")}
    seconds: dict[str, list[float]] = {kind: [] for kind in steps}
    for turn in range(args.rounds + 1):
        for kind, step in steps.items():
            began = time.process_time()
            step(pair.steps)
            if turn:  # the first one warms up
                seconds[kind].append((time.process_time() - began) / pair.steps)
    ratios = sorted(auto / plain for plain, auto in zip(seconds["plain"], seconds["auto"], strict=True))
    until = float(AUTO["distillation"]["until"]["fraction"])
    middle, plain = statistics.median(ratios), statistics.median(seconds["plain"])
    print(f"{pair.title}, teacher in {teacher}, {NOMINAL_BATCH} images a round, {args.rounds} rounds")
    print(f"plain: {1000 * plain:.0f} ms a step of one thread")
    print(f"with its teacher / plain: {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})")
    print(f"a training, with its teacher for {until:.0%} of it / plain: {1 + until * (middle - 1):.3f}")


if __name__ == "__main__":
    main()
