"""The parity benchmark from end to end: both trainers, both heads, and rows that are kept."""

import csv
import os
import subprocess
import sys
from pathlib import Path

from tests.support.machine.python import ROOT


def bench(tmp_path: Path, *words: str) -> str:
    folders = ["--results", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.accuracy.parity", "--quick", *words, *folders],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    logs = "".join(path.read_text() for path in (tmp_path / "work").glob("runs/*/log.txt"))
    assert run.returncode == 0, run.stdout + run.stderr + logs
    return run.stdout


def test_parity_trains_with_both_and_never_twice(tmp_path: Path) -> None:
    choice = ("--seeds", "0", "--optimizers", "SGD", "--kinds", "plain")
    output = bench(tmp_path, *choice)
    assert "2 runs, 0 done before" in output
    assert "| SGD plain, ours | SGD plain, Ultralytics | 1 |" in output
    with (tmp_path / "results" / "parity.csv").open(newline="") as file:
        rows = {row["arm"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {"SGD plain, ours", "SGD plain, Ultralytics"}
    for row in rows.values():
        assert 0 <= float(row["map"]) <= float(row["map50"]) <= 1
        assert 0 <= float(row["map_one2one"]) <= 1
        assert float(row["cpu_seconds"]) > 1
        assert float(row["step_seconds"]) > 0.1
        assert int(row["peak_mb"]) > 200

    again = bench(tmp_path, *choice, "--lanes", "1")
    assert "2 runs, 2 done before" in again
    assert again.splitlines()[1:] == [line for line in output.splitlines() if line.startswith("|")]
