"""Which students can learn from which teachers, and what a user is told who pairs the wrong ones."""

from dataclasses import replace

import pytest

from distill_api.errors import Permanent
from distill_api.reasons import Reason
from distill_trainer.models.pair import HEADS, ModelFacts, check, check_trainable, facts, mismatches
from tests.support.models import build

STUDENT = ModelFacts(
    name="yolo26n.pt",
    task="detect",
    head="Detect",
    family=frozenset({"Conv", "C3k2", "reg_max=1"}),
    names=("cat", "dog"),
    channels=3,
    strides=(8, 16, 32),
    fused=False,
)
TEACHER = replace(STUDENT, name="yolo26s.pt")

CASES = {
    "task": ({"task": "segment", "head": "Segment26"}, "is a segment model, but student yolo26n.pt is a detect model"),
    "family": ({"family": frozenset({"Conv", "C2f", "reg_max=16"})}, "of different model families"),
    "number of classes": ({"names": ("cat", "dog", "owl")}, "has 3 classes, but the data set has 2"),
    "class names": ({"names": ("cat", "cow")}, "has class 1 named 'cow', but the data set has 'dog'"),
    "class order": ({"names": ("dog", "cat")}, "has class 0 named 'dog', but the data set has 'cat'"),
    "levels": ({"strides": (4, 8, 16, 32)}, "has 4 feature levels, but student yolo26n.pt has 3"),
    "strides": ({"strides": (4, 8, 16)}, "has strides 4/8/16, but student yolo26n.pt has 8/16/32"),
    "channels": ({"channels": 1}, "takes images with 1 channels, but student yolo26n.pt takes 3"),
    "fused end-to-end teacher": ({"fused": True}, "was fused for inference, which removes its one-to-many branch"),
    **{
        head: ({"head": head, "task": task}, f"has a {head} head (task {task})")
        for head, task in [
            ("Classify", "classify"),
            ("SemanticSegment", "semantic"),
            ("Depth", "depth"),
            ("RTDETRDecoder", "detect"),
            ("WorldDetect", "detect"),
            ("YOLOEDetect", "detect"),
            ("YOLOESegment", "segment"),
        ]
    },
}


def test_a_larger_model_of_the_same_family_is_a_teacher() -> None:
    assert mismatches(STUDENT, TEACHER) == []
    check(STUDENT, TEACHER)


@pytest.mark.parametrize("case", CASES)
def test_each_mismatch_is_refused_for_its_own_reason(case: str) -> None:
    changes, says = CASES[case]
    reasons = mismatches(STUDENT, replace(TEACHER, **changes))
    assert len(reasons) == 1, reasons
    assert says in reasons[0]
    assert reasons[0].startswith(("teacher yolo26s.pt", "yolo26s.pt"))
    with pytest.raises(Permanent) as refusal:
        check(STUDENT, replace(TEACHER, **changes))
    assert refusal.value.reason is Reason.PAIR_MISMATCH
    assert says in refusal.value.message


def test_all_mismatches_are_told_at_once() -> None:
    teacher = replace(TEACHER, names=("cat",), strides=(8, 16), channels=1)
    assert len(mismatches(STUDENT, teacher)) == 3


def test_cross_family_is_a_choice_and_nothing_else_is() -> None:
    other = replace(TEACHER, family=frozenset({"C2f"}))
    assert mismatches(STUDENT, other, allow_cross_family=True) == []
    assert mismatches(STUDENT, replace(other, names=("cat",)), allow_cross_family=True) != []


@pytest.mark.parametrize("head", sorted(HEADS))
def test_supported_heads(head: str) -> None:
    check_trainable(replace(STUDENT, head=head))


def test_a_student_with_a_foreign_head_is_refused() -> None:
    with pytest.raises(Permanent, match="RTDETRDecoder") as refusal:
        check_trainable(replace(STUDENT, head="RTDETRDecoder"))
    assert refusal.value.reason is Reason.MODEL_INVALID


@pytest.mark.parametrize(
    ("student", "teacher", "compatible"),
    [
        ("yolo26n.yaml", "yolo26s.yaml", True),
        ("yolo11n.yaml", "yolo11s.yaml", True),
        ("yolov8n.yaml", "yolov8s.yaml", True),
        ("yolov10n.yaml", "yolov10s.yaml", True),
        ("yolo26n.yaml", "yolo11s.yaml", False),
        ("yolo26n.yaml", "yolov8s.yaml", False),
        ("yolo11n.yaml", "yolov8s.yaml", False),
        ("yolov8n.yaml", "yolov8s-p2.yaml", False),
    ],
)
def test_facts_of_real_models_tell_families_apart(student: str, teacher: str, compatible: bool) -> None:
    reasons = mismatches(facts(build(student), student), facts(build(teacher), teacher))
    assert (reasons == []) is compatible, reasons


def test_a_fused_end_to_end_model_is_recognised() -> None:
    model = build("yolo26n.yaml")
    model.end2end = True
    model.fuse(verbose=False)
    assert facts(model, "fused.pt").fused
