"""The student in other formats, exported by Ultralytics in a process of its own.

What tracing and graph optimisers do is native code that may crash, hang or need much memory, and it must end at once
when the pod is told to stop.
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
from distill_api.spec.fields import Export
from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.outputs.optional import OutputProblem

LEDGER = "exports.json"
"""Beside the weights: what each exported file was made of, so that an interrupted end is gone on with."""

_NEEDS: Mapping[str, tuple[str, ...]] = {"onnx": ("onnx",), "torchscript": ()}
_SIMPLIFIER = "onnxslim"
_POLL_SECONDS = 0.2
_LONGEST_SECONDS = 3600.0
_NO_CUDA = {"CUDA_VISIBLE_DEVICES": ""}


def export_weights(
    best: Path,
    form: str,
    export: Export,
    *,
    imgsz: int,
    sha256: str,
    moved: Callable[[], None],
    clock: Callable[[], float] = time.monotonic,
) -> list[str]:
    """Write `best` (weights/best.pt, whose digest is `sha256`) as `form` beside it, unless that is done already.

    `moved` is called several times a second and may raise, which ends the export. Raises OutputProblem, TrainerError.
    """
    target = best.with_suffix(f".{form}")
    made = f"{best.parent.name}/{target.name}"
    options = options_of(form, export, imgsz)
    recipe = {"of": sha256, "options": options}
    ledger = _read(best.parent / LEDGER)
    if target.exists() and ledger.get(target.name) == recipe:
        return [made]
    if missing := [package for package in _packages(form, export) if find_spec(package) is None]:
        raise OutputProblem(
            f"the package {', '.join(missing)} is missing; install distill-operator[trainer], or take {form} out of"
            " export.formats"
        )
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / best.name
        shutil.copyfile(best, copy)
        _run(copy, options, moved, clock)
        atomic_write(target, copy.with_suffix(target.suffix).read_bytes())
    atomic_write(best.parent / LEDGER, json.dumps(ledger | {target.name: recipe}, indent=1).encode())
    return [made]


def options_of(form: str, export: Export, imgsz: int) -> dict[str, Any]:
    """Arguments of Ultralytics' export, as it takes them for this format."""
    options: dict[str, Any] = {"format": form, "imgsz": imgsz, "dynamic": export.dynamic, "nms": export.nms}
    return options | ({"simplify": export.simplify} if form == "onnx" else {})


def _packages(form: str, export: Export) -> tuple[str, ...]:
    return _NEEDS[form] + ((_SIMPLIFIER,) if form == "onnx" and export.simplify else ())


def _run(weights: Path, options: Mapping[str, Any], moved: Callable[[], None], clock: Callable[[], float]) -> None:
    environ = {name: value for name, value in os.environ.items() if name not in RESERVED_ENV} | _NO_CUDA
    command = [sys.executable, "-m", "distill_trainer.outputs.export.process", str(weights), json.dumps(options)]
    began = clock()
    with tempfile.TemporaryFile() as output:
        # A session of its own: Ctrl-C in a terminal is for the run, which ends the export itself.
        process = subprocess.Popen(
            command, cwd=weights.parent, env=environ, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            while process.poll() is None:
                moved()
                if clock() - began > _LONGEST_SECONDS:
                    raise OutputProblem(f"the export was not done after {_LONGEST_SECONDS / 60:.0f} minutes")
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
        hint = ", as when memory is short" if -code == signal.SIGKILL else ""
        return f"the export was ended by {name}{hint}"
    lines = [line for line in output.splitlines() if line.strip()]
    return lines[-1] if lines else f"the export ended with exit code {code}"


def _read(path: Path) -> dict[str, Any]:
    """The ledger; empty when there is none or it is not readable, for exports can be made again."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
