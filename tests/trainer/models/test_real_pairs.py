"""The pair check on real models: built from Ultralytics' own architectures, saved as .pt, and given to a job."""

import logging
import time
from typing import Any

import pytest
import torch
from ultralytics import RTDETR, YOLO
from ultralytics.nn import tasks

from distill_api.errors import Permanent
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_trainer.models.loading import load_checkpoint
from distill_trainer.models.pair import check, check_trainable, facts, mismatches
from distill_trainer.models.setup import prepare
from distill_trainer.models.student import neck_channels, student_source
from distill_trainer.training.distillation.losses.registry import LOSSES
from distill_trainer.training.distillation.projector import Projector
from distill_trainer.training.distillation.task import DISTILLATION_LOSS, OBJECTIVE, DistillTask, Term
from distill_trainer.training.distillation.teacher import Teacher
from distill_trainer.training.distillation.terms import TASK_OF
from tests.support.models import CPU, build, job_spec, preprocessed, shard_batch, teach
from tests.support.ranks.in_process import Volumes

SECONDS = 20
"""Between the job and its refusal, Python's and torch's start not counted; 1 to 2 on an idle machine."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Volumes:
    return Volumes(tmp_path_factory.mktemp("pairs"))


def refusal(volumes: Volumes, **spec: Any) -> str:
    """What the job is told before anything is trained: one line."""
    directories = Directories(data=str(volumes.root / "data"), models=str(volumes.root / "models"))
    began = time.monotonic()
    with pytest.raises(Permanent) as refused:
        prepare(job_spec(**{"dataset": {"config": "digits.yaml"}} | spec), directories)
    assert time.monotonic() - began < SECONDS
    assert "\n" not in refused.value.message
    assert refused.value.reason in (Reason.PAIR_MISMATCH, Reason.MODEL_INVALID)
    return refused.value.message


@pytest.mark.parametrize(
    ("architecture", "head", "task"),
    [
        ("yolo26n-cls.yaml", "Classify", "classify"),
        ("yolo26n-sem.yaml", "SemanticSegment", "semantic"),
        ("yolo26n-depth.yaml", "Depth", "depth"),
        ("yolov8n-rtdetr.yaml", "RTDETRDecoder", "detect"),
        ("yolov8s-worldv2.yaml", "WorldDetect", "detect"),
        ("yoloe-26n.yaml", "YOLOEDetect", "detect"),
        ("yoloe-26n-seg.yaml", "YOLOESegment26", "segment"),
    ],
)
def test_a_foreign_head_is_refused_by_name(volumes: Volumes, architecture: str, head: str, task: str) -> None:
    """As a teacher, as a student's .pt, and as a student's .yaml."""
    name = architecture.replace(".yaml", ".pt")
    (RTDETR if "rtdetr" in architecture else YOLO)(architecture).save(volumes.root / "models" / name)
    says = f"{name} has a {head} head (task {task})"
    assert says in refusal(volumes, teacher={"model": name})
    assert says in refusal(volumes, student={"model": name}, teacher=None)
    with pytest.raises(Permanent, match=f"{architecture} has a {head} head"):
        student_source(None, architecture)


@pytest.mark.parametrize(
    ("architecture", "task", "says"),
    [
        ("yolo26s-seg.yaml", "segment", "teacher.pt is a segment model, but student yolo26n.yaml is a detect model"),
        ("yolo11s.yaml", "detect", "different model families (they differ in reg_max=1, reg_max=16)"),
        ("yolov8s.yaml", "detect", "different model families (they differ in C2PSA, C2f, C3k2, reg_max=1, reg_max=16)"),
        ("yolov3-tiny.yaml", "detect", "has 2 feature levels, but student yolo26n.yaml has 3"),
        ("yolo26s-p2.yaml", "detect", "has 4 feature levels, but student yolo26n.yaml has 3"),
    ],
)
def test_a_teacher_that_does_not_fit_is_refused(volumes: Volumes, architecture: str, task: str, says: str) -> None:
    torch.save({"model": named(volumes, build(architecture, task))}, volumes.root / "models/teacher.pt")
    assert says in refusal(volumes)


def named(volumes: Volumes, model: Any) -> Any:
    model.names = volumes.classes
    return model


def test_a_teacher_of_other_classes_is_refused(volumes: Volumes) -> None:
    YOLO("yolo26s.yaml").save(volumes.root / "models/teacher.pt")
    assert "teacher teacher.pt has 80 classes, but the data set has 10" in refusal(volumes)


def test_a_grey_teacher_is_refused(volumes: Volumes) -> None:
    model = tasks.DetectionModel("yolo26s.yaml", ch=1, nc=len(volumes.classes), verbose=False)
    torch.save({"model": named(volumes, model)}, volumes.root / "models/teacher.pt")
    assert "takes images with 1 channels, but student yolo26n.yaml takes 3" in refusal(volumes)


def test_levels_of_other_strides_are_refused() -> None:
    """As many levels, but of other strides: Ultralytics fails in the first step."""
    student, teacher = build("yolo26n-p2.yaml"), build("yolo26s-p6.yaml")
    for allow in (False, True):
        reasons = mismatches(facts(student, "p2.yaml"), facts(teacher, "p6.pt"), allow_cross_family=allow)
        assert reasons == [
            "teacher p6.pt has strides 8/16/32/64, but student p2.yaml has 4/8/16/32; "
            "choose architectures with the same strides"
        ]


def test_a_fused_teacher_is_refused_without_nms_and_accepted_with_nms(volumes: Volumes) -> None:
    """The first has lost its one-to-many branch, the second the one-to-one branch, without which it can teach."""
    for end2end in (True, False):
        model = named(volumes, build("yolo26s.yaml"))
        model.end2end = end2end
        torch.save({"model": model.fuse(verbose=False)}, volumes.root / f"models/end2end-{end2end}.pt")
    assert "which removes its one-to-many branch" in refusal(volumes, teacher={"model": "end2end-True.pt"})
    teacher = load_checkpoint(volumes.root / "models/end2end-False.pt")
    check(facts(named(volumes, build("yolo26n.yaml")), "student"), facts(teacher, "end2end-False.pt"))
    assert len(Teacher(teacher, CPU, torch.float32).infer(torch.rand(1, 3, 64, 64)).logits) == 1


def test_a_fused_student_is_refused_and_a_one_branch_teacher_is_not(volumes: Volumes) -> None:
    """Its weights would be those of convolutions that have swallowed their BatchNorm, below a fresh BatchNorm."""
    model = named(volumes, build("yolov8s.yaml"))
    torch.save({"model": model.fuse(verbose=False)}, volumes.root / "models/fused.pt")
    says = refusal(volumes, student={"model": "fused.pt"}, teacher=None)
    assert "fused.pt was fused for inference, which removes its BatchNorm layers" in says
    student = named(volumes, build("yolov8n.yaml"))
    check(facts(student, "student"), facts(load_checkpoint(volumes.root / "models/fused.pt"), "fused.pt"))
    check_trainable(facts(student, "student"))


@pytest.mark.parametrize(
    ("student", "teacher"),
    [("yolov9t.yaml", "yolov9s.yaml"), ("yolov9s.yaml", "yolov9m.yaml"), ("yolov9s.yaml", "yolov9c.yaml")],
)
def test_sizes_of_yolov9_are_one_family_although_their_layers_differ(student: str, teacher: str) -> None:
    assert mismatches(facts(build(student), student), facts(build(teacher), teacher)) == []


@pytest.mark.parametrize("loss", [name for name, loss in LOSSES.items() if loss.on not in TASK_OF])
@pytest.mark.parametrize(
    ("student_name", "teacher_name"), [("yolo26n.yaml", "yolo11s.yaml"), ("yolov8n.yaml", "yolo26s.yaml")]
)
def test_across_families_a_step_is_trained_and_said_to_be_experimental(
    student_name: str, teacher_name: str, loss: str, caplog: pytest.LogCaptureFixture
) -> None:
    student, model = build(student_name), teach(build(teacher_name, seed=1))
    ours, theirs = facts(student, student_name), facts(model, teacher_name)
    assert len(mismatches(ours, theirs)) == 1
    with caplog.at_level(logging.WARNING, logger="distill_trainer"):
        check(ours, theirs, allow_cross_family=True)
    assert "EXPERIMENTAL" in caplog.text
    assert f"teacher {teacher_name} and student {student_name}" in caplog.text

    term = Term(LOSSES[loss])
    projector = Projector(neck_channels(student), neck_channels(model)) if term.on_neck else None
    task = DistillTask(student, projector, [term]).train()
    batch = preprocessed(shard_batch(2))
    losses = task(batch, Teacher(model, CPU, torch.float32, term.loss.needs).infer(batch["img"]), weight=1.0)
    losses[OBJECTIVE].backward()
    assert losses[DISTILLATION_LOSS] > 0
    assert all(torch.isfinite(p.grad).all() for p in task.parameters() if p.grad is not None)


def test_a_pair_of_one_family_is_not_called_experimental(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="distill_trainer"):
        check(facts(build("yolo26n.yaml"), "n"), facts(build("yolo26s.yaml"), "s"), allow_cross_family=True)
    assert not caplog.records
