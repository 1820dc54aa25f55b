"""`make gpu-check` on CPUs: how it is run, checks that take seconds, and how each can end."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from benchmarks import ROOT
from benchmarks.gpucheck.findings import Findings, NotRun, Place
from benchmarks.gpucheck.runner import run_all, run_one
from tests.support.machine.processes import command
from tests.support.machine.python import environment


def checks(file: Path) -> dict[str, Any]:
    return {check["name"]: check for check in json.loads(file.read_text())["checks"]}


def started_with(variable: str) -> list[str]:
    """Commands of the running processes that have this environment variable."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if variable.encode() in (process / "environ").read_bytes():  # empty for a zombie
                found.append(command(int(process.name)))
    return found


def test_without_a_gpu_it_says_so_in_one_line() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpucheck"],
        env=environment(CUDA_VISIBLE_DEVICES="", PATH="/nowhere"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "gpu-check: there is no GPU on this machine, so nothing was checked\n"


def test_checks_run_on_cpus_and_show_their_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "bench/gpu.json"
    assert run_all(["environment", "checkpoint"], "cpu", file) == 0, capsys.readouterr().out
    found, shown = checks(file), capsys.readouterr().out
    assert {name: check["verdict"] for name, check in found.items()} == dict.fromkeys(found, "PASS")
    assert found["environment"]["figures"]["cpus"] >= 1
    assert 0 < found["checkpoint"]["figures"]["stall, ms"] < 10_000
    assert "[2/2] checkpoint" in shown
    assert f"every figure: {file}" in shown


def test_a_check_that_fails_stops_no_other_and_time_can_run_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    file = tmp_path / "gpu.json"
    assert run_all(["environment"], "cuda", file) == 1
    assert checks(file)["environment"]["why"] == ["PyTorch finds no GPU"]
    assert checks(file)["environment"]["figures"]["torch"]
    assert run_all(["environment", "steps"], "cuda", file, total=0.5) == 0
    assert [check["verdict"] for check in checks(file).values()] == ["NOT RUN"] * 2
    assert "FAIL" in capsys.readouterr().out


def test_a_check_that_takes_too_long_is_ended_with_all_that_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))  # by which its processes are found
    row = run_one("ends", "cpu", 10)
    assert row.verdict == "FAIL"
    assert row.why[0] == "was not done after 10 s"
    assert started_with(f"TMPDIR={tmp_path}") == []


def test_an_error_is_a_failure_and_what_was_found_before_is_kept(tmp_path: Path) -> None:
    def breaks(_: Place, found: Findings) -> None:
        found.figure("first", 1.23456)
        raise ValueError("no such device\nand more")

    def has_no_gpu(_: Place, __: Findings) -> None:
        raise NotRun("one GPU is too few")

    place, file = Place("cpu", tmp_path), tmp_path / "findings.json"
    with pytest.raises(ValueError, match="no such device"):
        Findings(file).run(breaks, place)
    found = Findings.load(file)
    assert (found.figures, found.failures) == ({"first": 1.235}, ["ValueError: no such device"])
    Findings(file).run(has_no_gpu, place)
    assert Findings.load(file).not_run == "one GPU is too few"
