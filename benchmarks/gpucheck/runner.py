"""Runs the checks one after the other, each as a process with a time limit, and shows what they found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.gpucheck.findings import Findings, Place

TOTAL_SECONDS = 600.0
BUDGETS: dict[str, tuple[str, float]] = {
    "environment": ("environment:check", 20),
    "collectives": ("collectives:check", 50),
    "parity": ("steps:parity", 50),
    "resume": ("launched:resume", 80),
    "ends": ("launched:ends", 90),
    "formats": ("steps:formats", 40),
    "overlap": ("steps:overlap", 40),
    "steps": ("speed:steps", 130),
    "loader": ("speed:loader", 50),
    "checkpoint": ("speed:checkpoint", 30),
    "compile": ("steps:compiled", 120),
}
"""By name: the function, and its seconds. Checks that end early leave their time to the last ones."""
CPU_FACTOR = 5
"""On CPUs, where only the program itself is tried, there is more time."""
STOP_SECONDS = 10.0
FIGURES = 60
"""Longest value, in characters, that the table shows; the file has all."""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    verdict: str
    """PASS, FAIL or NOT RUN."""
    seconds: float
    figures: dict[str, Any]
    why: list[str]


def run_all(names: list[str], device: str, file: Path, total: float = TOTAL_SECONDS) -> int:
    """Run the checks in at most `total` seconds, print the table, and write `file`; 1 if one failed, else 0."""
    factor = 1 if device == "cuda" else CPU_FACTOR
    ends, rows = time.monotonic() + total * factor, []
    for number, name in enumerate(names, 1):
        left = ends - time.monotonic()
        limit = min(BUDGETS[name][1] * factor, left)
        if limit < 1:
            rows.append(Row(name, "NOT RUN", 0.0, {}, [f"the {total * factor:.0f} s for all checks were over"]))
            continue
        print(f"[{number}/{len(names)}] {name}, at most {limit:.0f} s …", flush=True)
        rows.append(run_one(name, device, limit))
        print(f"    {rows[-1].verdict} in {rows[-1].seconds:.0f} s", flush=True)
    print(table(rows))
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"device": device, "checks": [asdict(row) for row in rows]}, indent=2) + "\n")
    print(f"every figure: {file}")
    return int(any(row.verdict == "FAIL" for row in rows))


def run_one(name: str, device: str, limit: float) -> Row:
    """Run a check as a process that ends, with all that it started, after `limit` seconds."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpu-check-", ignore_cleanup_errors=True) as folder:
        command = [sys.executable, "-m", "benchmarks.gpucheck", "--device", device, "--only", name, "--work", folder]
        log = Path(folder) / "log"
        with log.open("w") as stream:
            process = subprocess.Popen(command, cwd=ROOT, stdout=stream, stderr=stream, start_new_session=True)
        try:
            process.wait(limit)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        finally:
            _end(process)
        found = Findings.load(Path(folder) / "findings.json")
        said = log.read_text(errors="replace").splitlines()[-12:]
    if late:
        found.failures.append(f"was not done after {limit:.0f} s")
    elif not found.ended:
        found.failures.append(f"its process ended with {process.returncode}")
    if found.failures and said:
        print("\n".join(f"    | {line}" for line in said), flush=True)
    verdict = "FAIL" if found.failures else "NOT RUN" if found.not_run else "PASS"
    why = found.failures or ([found.not_run] if found.not_run else [])
    return Row(name, verdict, round(time.monotonic() - began, 1), found.figures, why)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what is left of a check's session: SIGTERM, on which it ends its runs, then SIGKILL."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def work(name: str, device: str, folder: Path) -> None:
    """The process of a check."""
    module, function = BUDGETS[name][0].split(":")
    check = getattr(import_module(f"benchmarks.gpucheck.{module}"), function)
    Findings(folder / "findings.json").run(check, Place(device, folder))


def table(rows: list[Row]) -> str:
    """Checks with verdict, seconds and figures; below each the reason of a failure."""
    lines = ["", f"{'check':<12} {'verdict':<8} {'seconds':>7}  figures"]
    for row in rows:
        shown = [f"{name} {value}" for name, value in row.figures.items() if len(str(value)) <= FIGURES]
        first, *rest = shown or [""]
        lines.append(f"{row.name:<12} {row.verdict:<8} {row.seconds:>7.1f}  {first}".rstrip())
        lines += [f"{'':<30} {figure}" for figure in rest]
        lines += [f"{'':<30} ! {why}" for why in row.why]
    return "\n".join([*lines, ""])
