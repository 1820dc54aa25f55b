"""`distill run` on this machine: the real trainer, stopped with Ctrl-C, killed, resumed, done."""

import contextlib
import csv
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from ultralytics import YOLO

from tests.support.cli.terminal import terminal
from tests.support.machine.processes import children, ranks_of, wait_until_gone
from tests.support.machine.python import command, environment


def make_dataset(folder: Path) -> None:
    """Bright squares on noise, 24 images to train on and 4 to validate on."""
    random = np.random.default_rng(0)
    for split, count in (("train", 24), ("val", 4)):
        (folder / "images" / split).mkdir(parents=True)
        (folder / "labels" / split).mkdir(parents=True)
        for index in range(count):
            pixels = random.integers(0, 90, (64, 64, 3), dtype=np.uint8)
            x, y = random.integers(4, 36, 2)
            pixels[y : y + 24, x : x + 24] = 250
            Image.fromarray(pixels).save(folder / "images" / split / f"{index}.png")
            label = f"0 {(x + 12) / 64} {(y + 12) / 64} 0.375 0.375\n"
            (folder / "labels" / split / f"{index}.txt").write_text(label)
    (folder / "data.yaml").write_text(yaml.safe_dump({"train": "images/train", "val": "images/val", "names": ["box"]}))


class Local:
    """Runs the command in a directory of its own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.started: list[subprocess.Popen[Any]] = []
        make_dataset(root / "runs/volumes/boxes")

    def start(self, *options: str, epochs: int = 3, **spec: Any) -> "subprocess.Popen[str]":
        """Start `distill run`; its output goes to a pipe."""
        process = subprocess.Popen(
            self.command(*options, epochs=epochs, **spec),
            cwd=self.root,
            env=environment(OMP_NUM_THREADS="1"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # Like a terminal's foreground group, to which Ctrl-C goes as a whole.
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def command(self, *options: str, epochs: int, **spec: Any) -> list[str]:
        """What runs the job, whose file it writes."""
        training = {"epochs": epochs, "batch": 4, "imgsz": 64, "workers": 0, "plots": False, "nbs": 4}
        document = {
            "apiVersion": "distilljob.dev/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": "boxes"},
            "spec": {
                "student": {"model": "yolo26n.yaml"},
                "dataset": {"config": "data.yaml"},
                "training": training,
                "accelerators": {"perNode": 0},
                "checkpoint": {"intervalSeconds": 1},
                "volumes": {"checkpoints": {"claimName": "results"}, "data": {"claimName": "boxes"}},
                **spec,
            },
        }
        (self.root / "job.yaml").write_text(yaml.safe_dump(document))
        return command("distill_cli.main", "run", "job.yaml", *options)

    def in_terminal(self, *options: str, epochs: int = 3) -> tuple[int, str]:
        """Run it to its end in a terminal; returns exit code and what the terminal got."""
        with terminal(self.command(*options, epochs=epochs), environment(OMP_NUM_THREADS="1"), self.root) as shown:
            self.started.append(shown.process)
            return shown.end(seconds=240), shown.text

    @property
    def results(self) -> Path:
        """The job's results."""
        return self.root / "runs/volumes/results/boxes"

    def committed(self) -> int:
        """Newest committed step; 0 for none."""
        steps = [int(path.name[5:]) for path in self.results.glob("checkpoints/step-*") if path.name[5:].isdigit()]
        return max(steps, default=0)

    def wait_for_commit(self, above: int) -> None:
        """Return when a newer checkpoint is committed."""
        deadline = time.monotonic() + 120
        while self.committed() <= above:
            assert self.started[-1].poll() is None, self.started[-1].communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.fixture
def local(tmp_path: Path) -> Iterator[Local]:
    """A directory to run in; nothing that was started in it outlives the test."""
    local = Local(tmp_path)
    yield local
    for process in local.started:
        if process.poll() is None:
            launchers = children(process.pid)
            kill(process.pid, *launchers, *(rank for launcher in launchers for rank in children(launcher)))
            process.wait()


def kill(*pids: int) -> None:
    """SIGKILL to all that are still there."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.timeout(300)
def test_ctrl_c_commits_and_the_same_command_goes_on_to_the_end(local: Local) -> None:
    first = local.start(epochs=4)
    local.wait_for_commit(above=0)
    os.killpg(first.pid, signal.SIGINT)
    output, _ = first.communicate(timeout=60)
    stopped = re.search(r"^stopped on request at step (\d+); committed step (\d+)$", output, re.MULTILINE)

    assert first.returncode == 143, output
    assert stopped is not None
    assert stopped[1] == stopped[2] == str(local.committed())
    assert "to resume: distill run job.yaml" in output
    assert "Traceback" not in output

    second = local.start(epochs=4)
    output, _ = second.communicate(timeout=200)
    assert second.returncode == 0, output
    assert "resuming boxes, attempt 2" in output
    assert local.committed() == 24
    with open(local.results / "results.csv") as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]
    assert YOLO(local.results / "weights/best.pt").names == {0: "box"}


@pytest.mark.timeout(300)
def test_after_a_kill_of_everything_the_next_run_goes_on_from_the_commit(local: Local) -> None:
    first = local.start(epochs=50)
    local.wait_for_commit(above=0)
    (launcher,) = children(first.pid)
    kill(launcher, *ranks_of(launcher))
    output, _ = first.communicate(timeout=60)
    assert first.returncode == 137
    assert "to retry from the last checkpoint" in output

    before = local.committed()
    second = local.start(epochs=50)
    local.wait_for_commit(above=before)
    os.killpg(second.pid, signal.SIGINT)
    second.communicate(timeout=60)
    assert second.returncode == 143


@pytest.mark.timeout(300)
def test_ranks_whose_launcher_is_gone_commit_and_end(local: Local) -> None:
    first = local.start(epochs=500)
    local.wait_for_commit(above=0)
    (launcher,) = children(first.pid)
    ranks = ranks_of(launcher)
    kill(launcher)
    wait_until_gone(ranks, seconds=60)
    output, _ = first.communicate(timeout=60)

    assert f"stopped on request at step {local.committed()}; committed step {local.committed()}" in output


@pytest.mark.timeout(300)
def test_a_run_whose_command_is_killed_commits_and_ends(local: Local) -> None:
    first = local.start(epochs=500)
    local.wait_for_commit(above=0)
    (launcher,) = children(first.pid)
    first.kill()
    wait_until_gone([launcher], seconds=60)
    output, _ = first.communicate(timeout=60)

    assert f"stopped on request at step {local.committed()}; committed step {local.committed()}" in output


@pytest.mark.timeout(300)
def test_users_mistakes_end_with_one_line_and_78_and_can_be_corrected(local: Local) -> None:
    nothing_to_read = local.start(dataset={"config": "absent.yaml"})
    output, _ = nothing_to_read.communicate(timeout=120)
    errors = [line for line in output.splitlines() if line.startswith("error: ")]

    assert nothing_to_read.returncode == 78, output
    assert len(errors) == 1
    assert "absent.yaml" in errors[0]
    assert "Traceback" not in output

    corrected = local.start(epochs=1)
    output, _ = corrected.communicate(timeout=200)
    assert corrected.returncode == 0, output


@pytest.mark.timeout(300)
def test_a_check_says_what_it_found_and_leaves_nothing(local: Local) -> None:
    checked = local.start(epochs=1, checkOnly=True)
    output, _ = checked.communicate(timeout=200)
    assert checked.returncode == 0, output
    said = "checked: yolo26n.yaml (2.5 M parameters) has no teacher; detect, 1 class, "
    assert any(line.startswith(said) for line in output.splitlines()), output
    assert not local.results.exists()


@pytest.mark.timeout(300)
def test_in_a_terminal_a_bar_follows_rank_0_below_its_lines(local: Local) -> None:
    """What the bar says comes from rank 0's own status; the lines of the log stay."""
    code, plain = local.in_terminal("--nproc", "1", epochs=6)

    assert code == 0, plain[-2000:]
    bar = re.search(r"epoch [2-6]/6 .*━.*\d+\.\d%  box [\d.]+ .*images/s  ETA ", plain)
    assert bar is not None, plain[-2000:]
    assert "epoch 6/6  box " in plain, "the trainer's own line"
    assert "done: " in plain
