"""training.compile reaches student and teacher, and an image that cannot compile says so before anything is trained."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from distill_trainer.models.student import neck_channels
from distill_trainer.training.distillation.balance import Balance
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
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
