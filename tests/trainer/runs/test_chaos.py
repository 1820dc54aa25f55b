"""A few of `make chaos`'s kills: real launchers and ranks, and the same bits at the end."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.support.machine.python import ROOT

pytestmark = pytest.mark.alone


@pytest.mark.timeout(300)
def test_a_run_that_is_killed_at_random_moments_ends_bitwise_equal(tmp_path: Path) -> None:
    out = tmp_path / "chaos.json"
    arguments = ["--kills", "2", "--seed", "1", "--epochs", "3", "--images", "24", "--out", str(out)]
    command = [sys.executable, "-m", "benchmarks.chaos.local", *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stdout + ended.stderr

    report = json.loads(out.read_text())
    assert report["different"] == []
    assert len(report["disturbances"]) == 2
    assert "runs are bitwise equal to the reference" in ended.stdout
