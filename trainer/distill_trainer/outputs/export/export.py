"""Exports the student with Ultralytics in a separate process.

Tracers and graph optimizers are native code that can crash, hang or need much memory, and the export must end at once
when the pod is stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from distill_api.constants import RESERVED_ENV
from distill_api.spec.outputs import Export
from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.outputs.optional import OutputProblem

EXPORTS_FILE = "exports.json"
"""File in the weights folder with the source and options of each export, so that finished exports are not repeated."""

_PACKAGES: Mapping[str, tuple[str, ...]] = {"onnx": ("onnx",), "torchscript": ()}
_SIMPLIFIER = "onnxslim"
_POLL_SECONDS = 0.2
_TIMEOUT_SECONDS = 3600.0
_NO_CUDA = {"CUDA_VISIBLE_DEVICES": ""}


def export_weights(
    best: Path,
    export_format: str,
    export: Export,
    *,
    imgsz: int,
    sha256: str,
    check_stop: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Export `best` (weights/best.pt with digest `sha256`) to the same folder, unless that was done already.

    Returns the file's path relative to the run's folder. `check_stop` is called several times a second; raising ends
    the export. Raises OutputProblem or TrainerError.
    """
    target = best.with_suffix(f".{export_format}")
    path = f"{best.parent.name}/{target.name}"
    options = options_of(export_format, export, imgsz)
    entry = {"of": sha256, "options": options}
    exports = _read(best.parent / EXPORTS_FILE)
    if target.exists() and exports.get(target.name) == entry:
        return [path]
    if missing := [package for package in _packages(export_format, export) if find_spec(package) is None]:
        raise OutputProblem(
            f"the package {', '.join(missing)} is missing; install distill-operator[trainer], or remove {export_format}"
            " from export.formats"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / best.name
        shutil.copyfile(best, copy)
        _run(copy, options, check_stop, clock)
        atomic_write(target, copy.with_suffix(target.suffix).read_bytes())
    atomic_write(best.parent / EXPORTS_FILE, json.dumps(exports | {target.name: entry}, indent=1).encode())
    return [path]


def options_of(export_format: str, export: Export, imgsz: int) -> dict[str, Any]:
    """Arguments of Ultralytics' export for this format."""
    options: dict[str, Any] = {"format": export_format, "imgsz": imgsz, "dynamic": export.dynamic, "nms": export.nms}
    return options | ({"simplify": export.simplify} if export_format == "onnx" else {})


def _packages(export_format: str, export: Export) -> tuple[str, ...]:
    return _PACKAGES[export_format] + ((_SIMPLIFIER,) if export_format == "onnx" and export.simplify else ())


def _run(weights: Path, options: Mapping[str, Any], check_stop: Callable[[], None], clock: Callable[[], float]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in RESERVED_ENV} | _NO_CUDA
    command = [sys.executable, "-m", "distill_trainer.outputs.export.process", str(weights), json.dumps(options)]
    started = clock()
    with tempfile.TemporaryFile() as output:
        # In a new session, Ctrl-C in a terminal does not reach the export; the run ends it.
        process = subprocess.Popen(
            command, cwd=weights.parent, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                check_stop()
                if clock() - started > _TIMEOUT_SECONDS:
                    raise OutputProblem(f"the export did not finish within {_TIMEOUT_SECONDS / 60:.0f} minutes")
                time.sleep(_POLL_SECONDS)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            output.seek(0)
            raise OutputProblem(_why(process.returncode, output.read().decode(errors="replace")))


def _why(code: int, output: str) -> str:
    if code < 0:
        name = signal.Signals(-code).name
        hint = ", probably for lack of memory" if -code == signal.SIGKILL else ""
        return f"the export was killed by {name}{hint}"
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"the export ended with exit code {code}"


def _read(path: Path) -> dict[str, Any]:
    """The entries of exports.json; empty if it cannot be read, because exports can be repeated."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
