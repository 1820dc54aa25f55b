"""training.compile reaches student and teacher, and an image that cannot compile says so before anything is trained."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from distill_trainer.models.compiling import CACHE_VARIABLE, keep_compiled
from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from tests.support.machine.python import environment
from tests.support.models import CPU, build, preprocessed, shard_batch, teach


class Graphs:
    """A backend of torch.compile that runs graphs as they are and counts their operators."""

    def __init__(self) -> None:
        self.operators = 0

    def __call__(self, graph: torch.fx.GraphModule, _inputs: Any) -> Any:
        self.operators += len(graph.graph.nodes)
        return graph.forward


def test_compiled_models_are_the_ones_that_run_and_compute_the_same() -> None:
    student, whole = build("yolo26n.yaml"), teach(build("yolo26s.yaml", seed=1))
    teacher = Teacher(whole, CPU, torch.float32)
    task = DistillTask(student, Projector(neck_channels(student), neck_channels(whole)), [Term(LOSSES["sl2"])]).train()
    batch = preprocessed(shard_batch(2))
    expected = task(dict(batch), teacher.infer(batch["img"]), weight=6.0)

    ours, theirs = Graphs(), Graphs()
    student.compile(backend=ours)
    teacher.compile(backend=theirs)
    losses = task(dict(batch), teacher.infer(batch["img"]), weight=6.0)
    assert ours.operators > 100
    assert theirs.operators > 100
    for name, loss in expected.items():
        torch.testing.assert_close(losses[name], loss, rtol=1e-5, atol=1e-6)


def test_a_balance_measures_the_same_in_a_compiled_student() -> None:
    student, whole = build("yolo26n.yaml"), teach(build("yolo26s.yaml", seed=1))
    teacher, balance = Teacher(whole, CPU, torch.float32), Balance(3, share=0.5)
    projector = Projector(neck_channels(student), neck_channels(whole))
    task = DistillTask(student, projector, [Term(LOSSES["spkd"])], balance).train()
    batch = preprocessed(shard_batch(2))

    def measured() -> torch.Tensor:
        balance.begin_step(1.0)
        task(dict(batch), teacher.infer(batch["img"]), weight=1.0)["objective"].backward()
        return balance.measured()

    expected = measured()
    graphs = Graphs()
    student.compile(backend=graphs)
    torch.testing.assert_close(measured(), expected, rtol=1e-4, atol=0)
    assert graphs.operators > 100
    assert (expected[:, :2] > 0).all()


def test_without_a_compiler_the_job_is_told_what_its_image_lacks(tmp_path: Path) -> None:
    code = (
        "import torch\n"
        "from distill_trainer.models.compiling import check_compiler\n"
        "from distill_api.errors import Permanent\n"
        "try:\n"
        "    check_compiler(torch.device('cpu'))\n"
        "except Permanent as refusal:\n"
        "    print(refusal.reason, refusal.message)\n"
    )
    environment = os.environ | {
        "PATH": str(tmp_path),
        "CXX": str(tmp_path / "none"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("ConfigInvalid training.compile is true, but torch.compile does"), done.stderr
    assert done.stdout.count("\n") == 1


COMPILES = """
import sys
from pathlib import Path
from types import SimpleNamespace
import pytest
import torch
from torch._dynamo.utils import counters
from distill_trainer.models.compiling import keep_compiled
keep_compiled(Path(sys.argv[1]))
assert torch.compile(lambda values: values.sin() + 1)(torch.zeros(64)).sum() == 64
found = counters["aot_autograd"]["autograd_cache_hit"] + counters["inductor"]["fxgraph_cache_hit"]
print("found" if found else "made")
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++ (Debian: g++)")
def test_a_later_attempt_finds_what_an_earlier_one_has_compiled(tmp_path: Path) -> None:
    folder = tmp_path / "job" / "compiled"
    told = []
    for _ in range(2):
        ended = subprocess.run(
            [sys.executable, "-c", COMPILES, str(folder)], env=environment(), capture_output=True, text=True, check=True
        )
        told.append(ended.stdout.split()[-1])
    assert told == ["made", "found"]


def test_a_volume_that_cannot_keep_programs_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    (tmp_path / "file").touch()
    keep_compiled(tmp_path / "file" / "compiled")
    assert "every attempt compiles anew" in caplog.text
    caplog.clear()
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_flag=os.ST_NOEXEC))
    keep_compiled(tmp_path / "compiled")
    assert "noexec" in caplog.text
    assert CACHE_VARIABLE not in os.environ


def test_a_cache_that_the_template_sets_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, "/cache")
    keep_compiled(tmp_path / "compiled")
    assert os.environ[CACHE_VARIABLE] == "/cache"
    assert not list(tmp_path.iterdir())
