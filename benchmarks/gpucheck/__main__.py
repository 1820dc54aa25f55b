"""Checks this project on a machine with GPUs, in at most ten minutes.

    make gpu-check                                 # every check
    make gpu-check ARGS="--only overlap --only steps"

Each check runs in a process of its own with a time limit, so that one that fails, hangs or breaks its CUDA context does
not stop the others. Prints a table of PASS, FAIL and NOT RUN with figures, and writes build/bench/gpu.json. Ends with 1
if a check failed. Without a GPU it says so and ends with 0.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from benchmarks.gpucheck.runner import BUDGETS, run_all, work


def main() -> int:
    """Run the checks; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=BUDGETS, action="append", help="run only this check; may be repeated")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help=argparse.SUPPRESS)
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started ends, too
    if args.work:
        work(args.only[0], args.device, args.work)
        return 0
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    elif why := no_gpu():
        print(f"gpu-check: {why}")
        return 1 if _driver_lists_gpus() else 0
    return run_all(args.only or list(BUDGETS), args.device, Path("build/bench/gpu.json"))


def no_gpu() -> str | None:
    """Why nothing can be checked; None if PyTorch finds a GPU."""
    import torch

    if torch.cuda.is_available():
        return None
    if _driver_lists_gpus():
        return f"nvidia-smi lists GPUs, but PyTorch {torch.__version__} finds none; check the driver's version"
    return "there is no GPU on this machine, so nothing was checked"


def _driver_lists_gpus() -> bool:
    if shutil.which("nvidia-smi") is None:
        return False
    listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False)
    return "GPU 0" in listed.stdout


if __name__ == "__main__":
    sys.exit(main())
