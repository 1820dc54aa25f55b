"""Ultralytics' own trainer as installed, on the same bytes and settings; it starts anew when it was interrupted.

python -m benchmarks.accuracy.trainers.ultralytics_own RUN/request.json
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import distill_trainer  # noqa: F401  (first: it keeps ultralytics offline)
from benchmarks.accuracy.trainers.request import Request

SECONDS = "step_seconds.txt"


def train(request: Request) -> tuple[Path, float]:
    """Train to the end, in a process. Returns the folder of the results, and the seconds of the training epochs."""
    results = Path(request.folder) / "results"
    shutil.rmtree(results, ignore_errors=True)
    command = [sys.executable, "-m", "benchmarks.accuracy.trainers.ultralytics_own", str(request.write())]
    if code := subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
        raise RuntimeError(f"Ultralytics' trainer ended with exit code {code}")
    return results / "run", float((results / SECONDS).read_text())


def main() -> None:
    """Train in this process."""
    request = Request.read(Path(sys.argv[1]))
    from ultralytics import YOLO

    results, spent, began = Path(request.folder) / "results", 0.0, 0.0
    models = Path(request.models)

    def begin(_: object) -> None:
        nonlocal began
        began = time.perf_counter()

    def end(_: object) -> None:
        nonlocal spent
        spent += time.perf_counter() - began

    student = models / request.student
    model = YOLO(str(student) if student.is_file() else request.student, task=request.task)
    model.add_callback("on_train_epoch_start", begin)
    model.add_callback("on_train_epoch_end", end)
    model.train(
        **request.training,
        data=str(request.config),
        distill_model=str(models / request.teacher) if request.teacher else None,
        device="cpu",
        amp=False,
        project=str(results),
        name="run",
        exist_ok=True,
        verbose=False,
    )
    (results / SECONDS).write_text(f"{spent:.3f}")


if __name__ == "__main__":
    main()
