"""distill() as a notebook calls it: real processes, a real interrupt, and errors that end in one line."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from ultralytics import YOLO

from distill_api.constants import JobFile
from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer import distill
from distill_trainer.checkpoint.format import layout

TINY = {"batch": 4, "nbs": 4, "imgsz": 64, "workers": 0, "plots": False, "optimizer": "SGD"}

CELLS = """
import json, os, signal, sys
from distill_trainer import distill
signal.signal(signal.SIGINT, signal.default_int_handler)  # as a notebook's kernel does, whoever has started it
call = json.loads(sys.argv[1])
try:
    distill(**call)
except KeyboardInterrupt as interrupt:
    print("interrupted:", interrupt, flush=True)
run = distill(**(call | {"nproc": 1}))
print("result:", json.dumps([str(run.best), run.student_map, run.teacher_map, len(run.results())]), flush=True)
print("environment:", json.dumps({name: value for name, value in os.environ.items() if "YOLO" in name}))
print("modules:", [name for name in ("torch", "ultralytics") if name in sys.modules])
"""
"""What a person runs: a call that is interrupted, and the same call again in the same process."""


def line(output: str, start: str) -> str:
    return next(text.removeprefix(start).strip() for text in output.splitlines() if text.startswith(start))


@pytest.mark.timeout(300)
def test_an_interrupted_call_commits_and_resumes_with_fewer_processes(make_digits: Any, tmp_path: Path) -> None:
    call = {
        "student": "yolo26n.yaml",
        "data": str(make_digits(train=24, val=4, imgsz=64) / "digits.yaml"),
        "project": str(tmp_path),
        "device": "cpu",
        "nproc": 2,
        "shards": 2,
        "epochs": 8,  # far more than are trained before the signal arrives
        **TINY,
    }
    environ = {name: value for name, value in os.environ.items() if "YOLO" not in name and "ULTRALYTICS" not in name}
    kernel = subprocess.Popen(
        [sys.executable, "-c", CELLS, json.dumps(call)],
        env=environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    committed = tmp_path / "yolo26n" / JobFile.CHECKPOINTS
    while kernel.poll() is None and not (committed.exists() and layout.committed_steps(committed)):
        time.sleep(0.05)
    kernel.send_signal(signal.SIGINT)
    output, _ = kernel.communicate(timeout=240)

    assert kernel.returncode == 0, output
    assert "starting yolo26n, attempt 1, 2 ranks" in output
    assert "stopped on request at step" in line(output, "interrupted:")
    assert "run the same call again to resume" in line(output, "interrupted:")
    assert "resuming yolo26n, attempt 2, 1 rank;" in output
    assert "Traceback" not in output
    best, student_map, teacher_map, epochs = json.loads(line(output, "result:"))
    assert (teacher_map, epochs) == (None, 8)
    assert student_map >= 0
    assert len(YOLO(best).names) == 10
    assert json.loads(line(output, "environment:")) == {}
    assert line(output, "modules:") == "[]"


def test_an_import_costs_neither_pytorch_nor_ultralytics() -> None:
    script = (
        "import sys; from distill_trainer import distill;"
        "print([m for m in ('torch', 'ultralytics') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", script], text=True).strip() == "[]"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "data.yaml").write_text(yaml.safe_dump({"train": "none", "val": "none", "names": ["a"]}))
    return {"student": "yolo26n.yaml", "data": tmp_path / "data.yaml", "project": tmp_path, "device": "cpu"}


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"epcohs": 3}, Reason.CONFIG_INVALID, r"distill\(\) has no argument epcohs; did you mean epochs\?"),
        ({"studnet": 3}, Reason.CONFIG_INVALID, r"no argument studnet; did you mean student\?"),
        ({"epochs": 0}, Reason.CONFIG_INVALID, "^epochs: must be greater than or equal to 1, but is 0$"),
        ({"student": None}, Reason.CONFIG_INVALID, r"needs student, or a job"),
        ({"data": "none.yaml"}, Reason.DATASET_INVALID, "data none.yaml does not exist .*files are never downloaded"),
        ({"student": "none.pt"}, Reason.MODEL_NOT_FOUND, "student none.pt does not exist"),
        ({"teacher": "none.pt"}, Reason.MODEL_NOT_FOUND, "teacher none.pt does not exist"),
        ({"batch": 5, "nproc": 2}, Reason.CONFIG_INVALID, "^batch 5 is not divisible by 2 processes$"),
        ({"nproc": 2, "shards": 3, "batch": 3}, Reason.CONFIG_INVALID, "nproc 2 does not divide .* use one of 1, 3"),
        ({"device": "cuda"}, Reason.NO_ACCELERATOR, "has no CUDA device; use device='cpu'"),
        ({"device": "0,1"}, Reason.CONFIG_INVALID, "it must be auto, cuda or cpu"),
        ({"distillation": {"loss": "mgd"}}, Reason.CONFIG_INVALID, "distillation.loss: must be 'sl2'"),
        ({"init": "slice"}, Reason.CONFIG_INVALID, "student.init: must be 'default'"),
        ({"volumes": {"a": "b"}}, Reason.CONFIG_INVALID, "volumes can only be given with a job"),
        ({"name": "My Run"}, Reason.CONFIG_INVALID, "^name: 'My Run' is invalid; expected: Name of the job"),
    ],
)
def test_a_wrong_call_is_refused_before_anything_starts(
    files: dict[str, Any], changes: dict[str, Any], reason: Reason, message: str
) -> None:
    with pytest.raises(Permanent, match=message) as refused:
        distill(**files | changes)
    assert refused.value.reason is reason


def test_a_mistake_that_only_the_trainer_sees_is_its_one_line(files: dict[str, Any], capfd: Any) -> None:
    with pytest.raises(Permanent, match=r"train is .*none, which does not exist") as refused:
        distill(**files, verbose=False)
    assert refused.value.reason is Reason.DATASET_INVALID
    assert capfd.readouterr() == ("", "")


def test_a_job_says_everything_itself(tmp_path: Path) -> None:
    claim = {"claimName": "claim"}
    job = {
        "metadata": {"name": "job"},
        "spec": {
            "student": {"model": "yolo26n.yaml"},
            "dataset": {"config": "data.yaml"},
            "volumes": {"checkpoints": claim, "data": claim},
        },
    }
    with pytest.raises(Permanent, match="epochs cannot be given together with a job"):
        distill(job, epochs=3)
    with pytest.raises(
        Permanent, match=r"directory .*volumes/claim for claim claim .*does not exist.* \(volumes={'claim': DIR}\)"
    ):
        distill(job, project=tmp_path, device="cpu")
    check = {"checkOnly": True, "accelerators": {"perNode": 0}}
    with pytest.raises(Permanent, match="check it with distill run"):
        distill(job | {"spec": job["spec"] | check}, project=tmp_path)
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job | {"kind": "Job"}))
    with pytest.raises(Permanent, match="expected one document of kind DistillJob, found 0"):
        distill(tmp_path / "job.yaml")
