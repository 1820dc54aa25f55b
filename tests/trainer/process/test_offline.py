"""A job downloads nothing, installs nothing and tells nobody: seen from outside of every process that it starts."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_trainer.process import offline
from tests.support.models import SUFFIX

SEEN_FROM_OUTSIDE = '''
"""Runs first in every Python process of the job: writes down what would leave this machine, and lets it fail."""
import os, re, sys

def audit(event, arguments):
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple):
        what = str(arguments[1][0])
        if what in ("127.0.0.1", "::1", "localhost"):
            return
    elif event in ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec"):
        what = str(arguments[:2])  # without the environment
        if not re.search(r"\\b(pip3?|uv|curl|wget|git|apt|apt-get)\\b", what):
            return
    elif event == "socket.getaddrinfo":
        what = str(arguments[0])
        if what in ("127.0.0.1", "::1", "localhost", "None", os.uname().nodename):
            return
    else:
        return
    with open(os.environ["SEEN"], "a") as file:
        file.write(f"{sys.argv} {event} {what}\\\\n")
    raise ConnectionRefusedError(what)

sys.addaudithook(audit)
open(os.environ["SEEN"] + ".processes", "a").write(f"{sys.orig_argv[1:3]}\\\\n")
'''


@pytest.mark.timeout(200)
@pytest.mark.parametrize("task", ["detect", "pose"])
def test_a_whole_job_neither_connects_elsewhere_nor_installs_anything(
    make_digits: Any, tmp_path: Path, task: str
) -> None:
    data = make_digits(task, train=6, val=2, imgsz=64)
    config = yaml.safe_load((data / "digits.yaml").read_text())
    # Nothing of a font here has these letters, and a script that would fetch the data.
    config["names"] = {number: f"数字{number}" for number in range(10)}
    config |= {"download": "https://example.com/digits.zip", "path": str(data)}
    (tmp_path / "sitecustomize.py").write_text(SEEN_FROM_OUTSIDE.replace("\\\\", "\\"))
    job = {
        "kind": "DistillJob",
        "metadata": {"name": "job"},
        "spec": {
            "student": {"model": f"yolo26n{SUFFIX[task]}.yaml"},
            "dataset": {"config": "offline.yaml"},
            "training": {"epochs": 1, "batch": 4, "imgsz": 64, "workers": 1, "plots": True},
            "accelerators": {"perNode": 0},
            "volumes": {"checkpoints": {"claimName": "results"}, "data": {"claimName": "data"}},
        },
    }
    (data / "offline.yaml").write_text(yaml.safe_dump(config))
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))
    (tmp_path / "home").mkdir()
    seen = tmp_path / "seen"
    command = [sys.executable, "-m", "distill_cli.main", "run", "job.yaml", "--volume", f"data={data}"]
    environ = {name: value for name, value in os.environ.items() if "YOLO" not in name and "ULTRALYTICS" not in name}
    environ |= {"PYTHONPATH": str(tmp_path), "SEEN": str(seen), "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, check=False)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (tmp_path / "runs/volumes/results/job/weights/best.pt").exists()
    watched = Path(f"{seen}.processes").read_text()
    for program in (
        "distill_cli.main",
        "distill_trainer",
        "distill_trainer.checkpoint.writer.process",
    ):
        assert f"['-m', '{program}']" in watched
    assert not seen.exists(), seen.read_text()
    assert list((tmp_path / "home").rglob("*")) == []

    script = "import socket; socket.create_connection(('192.0.2.1', 443), timeout=1)"
    subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, check=False)
    assert "192.0.2.1" in seen.read_text(), "a connection would not have been seen"


def run_guarded(code: str) -> str:
    script = f"from distill_trainer import offline\noffline.stay_offline()\n{code}"
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    return (ended.stdout + ended.stderr).strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("code", "last_line"),
    [
        (
            "import socket; socket.create_connection(('192.0.2.1', 443), timeout=1)",
            "PermissionError: the trainer is offline: connection to 192.0.2.1 blocked",
        ),
        (
            "import socket; socket.create_connection(('example.com', 443), timeout=1)",
            "PermissionError: the trainer is offline: name lookup of example.com blocked",
        ),
        (
            "import subprocess; subprocess.run(['pip', 'install', 'x'])",
            "PermissionError: the trainer is offline: ['pip', 'install', 'x'] was not run",
        ),
        (
            "import subprocess, sys; subprocess.run(f'{sys.executable} -m pip install x', shell=True)",
            "PermissionError: the trainer is offline: ",
        ),
        ("import subprocess; print(subprocess.check_output(['echo', 'pip'], text=True))", "pip"),
        (
            "import socket; a = socket.create_server(('127.0.0.1', 0)); socket.create_connection(a.getsockname()); "
            "print('connected')",
            "connected",
        ),
    ],
)
def test_a_rank_refuses_only_what_ultralytics_would_fetch_or_install(code: str, last_line: str) -> None:
    assert run_guarded(code).startswith(last_line)


def test_the_scratch_directory_is_this_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(offline.tempfile, "tempdir", str(tmp_path))
    directory = offline.scratch_directory()
    assert directory.stat().st_mode & 0o777 == 0o700
    directory.rmdir()
    directory.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="belongs to another user"):
        offline.scratch_directory()


def test_the_environment_is_given_back_unless_ultralytics_has_read_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(offline.tempfile, "tempdir", str(tmp_path))
    environ = {"YOLO_AUTOINSTALL": "true", "HOME": "/home/me"}
    settings = offline.prepare(environ)
    assert (environ["YOLO_AUTOINSTALL"], environ["YOLO_OFFLINE"]) == ("false", "true")
    assert settings.ultralytics_was_loaded
    settings.restore()
    assert environ == {"YOLO_AUTOINSTALL": "true", "HOME": "/home/me"}
