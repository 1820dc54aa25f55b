"""Trains one run in processes of its own, scores its last weights, and writes answer.json.

python -m benchmarks.accuracy.trainers.one RUN/request.json
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from benchmarks.accuracy.trainers import ours, ultralytics_own
from benchmarks.accuracy.trainers.request import ANSWER, Request
from benchmarks.accuracy.trainers.score import curve, scores

SPENT = "spent.json"
TRAINERS = {"ours": ours.train, "ultralytics": ultralytics_own.train}


def _stop(_signum: int, _frame: FrameType | None) -> None:
    raise SystemExit(143)


def _spent(request: Request, began: float) -> dict[str, float]:
    """Seconds and memory of the attempts that ended before and of this one. Ultralytics' trainer does not resume."""
    file = Path(request.folder) / SPENT
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = {
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "wall_seconds": time.perf_counter() - began,
        "peak_mb": usage.ru_maxrss / 1024,
    }
    if file.exists() and request.trainer == "ours":
        before = json.loads(file.read_text())
        spent = {
            name: max(value, before[name]) if name == "peak_mb" else value + before[name]
            for name, value in spent.items()
        }
    file.write_text(json.dumps(spent))
    return spent


def run(request: Request) -> dict[str, object]:
    """Train and score. Seconds of CPU count all processes of the training, start-up and validation included."""
    began, loads = time.perf_counter(), [os.getloadavg()[0]]
    try:
        results, step_seconds = TRAINERS[request.trainer](request)
    finally:
        spent = _spent(request, began)
    loads.append(os.getloadavg()[0])
    answer: dict[str, object] = {
        "cpu_seconds": round(spent["cpu_seconds"], 1),
        "wall_seconds": round(spent["wall_seconds"], 1),
        "step_seconds": round(step_seconds, 1),
        "peak_mb": round(spent["peak_mb"]),
        "load": round(sum(loads) / len(loads), 1),
        "curve": curve(results / "results.csv", request.task),
    }
    answer |= scores(results / "weights" / "last.pt", request)
    partial = request.kept.with_suffix(".tmp")
    shutil.copyfile(results / "weights" / "last.pt", partial)
    partial.replace(request.kept)
    return answer


def main() -> None:
    """Run the request, at the lowest priority."""
    os.nice(19 - os.nice(0))
    signal.signal(signal.SIGTERM, _stop)
    request = Request.read(Path(sys.argv[1]))
    answer = Path(request.folder) / ANSWER
    partial = answer.with_suffix(".tmp")
    partial.write_text(json.dumps(run(request)))
    partial.replace(answer)
    shutil.rmtree(Path(request.folder) / "results", ignore_errors=True)
    (Path(request.folder) / SPENT).unlink()


if __name__ == "__main__":
    main()
