"""The tables of arms, scenarios and sizes. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.accuracy.data.datasets import LABELLED, WITHOUT_LABELS

SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb"}


@dataclass(frozen=True)
class Arm:
    """A way to train the student."""

    title: str
    teacher: bool = False
    trainer: Literal["ours", "ultralytics"] = "ours"
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a DistillJob's spec that differ from the defaults."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Training arguments that differ from the size's."""
    as_long_as: str | None = None
    """Name of an arm: this one gets as many epochs as fit into that arm's CPU seconds."""
    pays_teacher: bool = False
    """The teacher's training is part of those seconds."""
    once: bool = False
    """Only the first seed is trained: it takes too long for more."""
    unlabelled: bool = False
    """Whether it learns from images without labels, which only some scenarios have."""
    auto: bool = False
    """The fields are those that recipe: auto chooses for the scenario."""
    switches: tuple[str, ...] = ()
    """Names in trainers.switches.SWITCHES."""

    @property
    def inherits(self) -> bool:
        """Whether the student starts from the teacher's weights."""
        return self.auto or self.spec.get("student", {}).get("init") == "inherit"


COPIED = {"student": {"init": "inherit", "inherit": {"channels": "index", "images": 0}}}
BY_IMPORTANCE = {"student": {"init": "inherit", "inherit": {"channels": "importance", "images": 0}}}
FITTED = {"student": {"init": "inherit", "inherit": {"channels": "activations", "images": 64}}}
NOTHING = {"distillation": {"weight": 0}}
THIRD = {"schedule": "stop", "until": {"fraction": 0.33}}
COSINE = {"schedule": "cosine", "until": {"fraction": 0.5}}
BALANCED = {"share": 0.5, **COSINE}
HALF = {"terms": [{"loss": "spkd"}], **BALANCED}
HEAD = [{"loss": "bckd"}, {"loss": "iou"}]
UNLABELLED = {"dataset": {"unlabelled": {"images": WITHOUT_LABELS}}}
ARMS: dict[str, Arm] = {
    "plain": Arm("plain"),
    "ultralytics-plain": Arm("plain, by Ultralytics' own trainer", trainer="ultralytics"),
    "ultralytics": Arm("Ultralytics' own `distill_model`", teacher=True, trainer="ultralytics"),
    "recipe": Arm("Ultralytics' recipe in this trainer (`sl2`, constant 6.0)", teacher=True),
    "auto": Arm("`recipe: auto`", teacher=True, auto=True),
    "plain-equal": Arm("plain, as many seconds as auto", as_long_as="auto", once=True),
    "plain-equal-all": Arm("plain, as many as auto and its teacher", as_long_as="auto", pays_teacher=True, once=True),
    "stop": Arm(
        "`sl2`, `stop` at a third",
        teacher=True,
        spec={"distillation": THIRD},
    ),
    "terms": Arm(
        "`bckd` and `iou`, cosine to zero at half", teacher=True, spec={"distillation": {"terms": HEAD, **COSINE}}
    ),
    "terms-throughout": Arm("`bckd` and `iou`", teacher=True, spec={"distillation": {"terms": HEAD}}),
    "terms-strong": Arm(
        "`bckd` and `iou` with weight 3, cosine to the end",
        teacher=True,
        spec={"distillation": {"terms": [term | {"weight": 3.0} for term in HEAD], "schedule": "cosine"}},
    ),
    "inherit": Arm("a copied slice alone", teacher=True, spec=COPIED | NOTHING),
    "inherit-importance": Arm(
        "a copied slice alone, channels by importance", teacher=True, spec=BY_IMPORTANCE | NOTHING
    ),
    "fitted": Arm("`init: inherit` alone", teacher=True, spec=FITTED | NOTHING),
    "fitted-index": Arm(
        "`init: inherit` alone, channels by index",
        teacher=True,
        spec={"student": {"init": "inherit", "inherit": {"channels": "index", "images": 64}}} | NOTHING,
    ),
    "fitted-terms-throughout": Arm(
        "`init: inherit`, `bckd` and `iou`", teacher=True, spec=FITTED | {"distillation": {"terms": HEAD}}
    ),
    "fitted-half-lr": Arm(
        "`init: inherit` alone, half the learning rate", teacher=True, spec=FITTED | NOTHING, training={"lr0": 0.002}
    ),
    "fitted-stop": Arm("`init: inherit`, `sl2` until a third", teacher=True, spec=FITTED | {"distillation": THIRD}),
    "fitted-balance": Arm(
        "`init: inherit`, `spkd` at half the task's gradient, cosine",
        teacher=True,
        spec=FITTED | {"distillation": HALF},
    ),
    "fitted-cwd": Arm(
        "`init: inherit`, `cwd` at half the task's gradient, cosine",
        teacher=True,
        spec=FITTED | {"distillation": {"terms": [{"loss": "cwd"}], **BALANCED}},
    ),
    "fitted-pkd": Arm(
        "`init: inherit`, `pkd` at half the task's gradient, cosine",
        teacher=True,
        spec=FITTED | {"distillation": {"terms": [{"loss": "pkd"}], **BALANCED}},
    ),
    "inherit-stop": Arm("a copied slice, `sl2` until a third", teacher=True, spec=COPIED | {"distillation": THIRD}),
    "balance": Arm("`spkd` at half the task's gradient, cosine", teacher=True, spec={"distillation": HALF}),
    "inherit-balance": Arm(
        "a copied slice, `spkd` at half the task's gradient, cosine", teacher=True, spec=COPIED | {"distillation": HALF}
    ),
    "inherit-terms": Arm(
        "a copied slice, `bckd` and `iou`, cosine to zero at half",
        teacher=True,
        spec=COPIED | {"distillation": {"terms": HEAD, **COSINE}},
    ),
    "inherit-terms-half": Arm(
        "a copied slice, `bckd` and `iou` on half of the images, cosine to the end",
        teacher=True,
        spec=COPIED | {"teacher": {"batchFraction": 0.5}, "distillation": {"terms": HEAD, "schedule": "cosine"}},
    ),
    "inherit-terms-quarter": Arm(
        "a copied slice, `bckd` and `iou` on a quarter of the images",
        teacher=True,
        spec=COPIED | {"teacher": {"batchFraction": 0.25}, "distillation": {"terms": HEAD}},
    ),
    "inherit-all": Arm(
        "a copied slice, `spkd` at half the task's gradient with `bckd` and `iou`, cosine",
        teacher=True,
        spec=COPIED | {"distillation": HALF | {"terms": [{"loss": "spkd"}, *HEAD]}},
    ),
    "unlabelled": Arm(
        "`bckd` and `iou` with as many unlabelled images",
        teacher=True,
        spec={"distillation": {"terms": HEAD}, **UNLABELLED},
        unlabelled=True,
    ),
    "inherit-unlabelled": Arm(
        "a copied slice, `bckd` and `iou` with as many unlabelled images",
        teacher=True,
        spec=COPIED | {"distillation": {"terms": HEAD}, **UNLABELLED},
        unlabelled=True,
    ),
}
"""A new recipe is one line."""
SCHEDULES: dict[str, tuple[str, dict[str, Any]]] = {
    "constant": ("constant weight", {}),
    "third": ("`stop` at a third", THIRD),
    "balanced": ("half the task's gradient, cosine to zero at half", BALANCED),
}
ARMS |= {
    f"{loss}-{name}": Arm(
        f"`{loss}`, {title}", teacher=True, spec={"distillation": {"terms": [{"loss": loss}], **schedule}}
    )
    for loss in ("sl2", "cwd", "pkd", "spkd", "logit")
    for name, (title, schedule) in SCHEDULES.items()
    if (loss, name) not in {("logit", "balanced"), ("spkd", "balanced"), ("sl2", "constant"), ("sl2", "third")}
}
"""Every loss with every schedule, from random weights: sl2 with two of them is `recipe` and `stop`, spkd balanced is
`balance`, and logit is not on the neck, where a share is one of the gradient.
"""
DEFAULT_ARMS = ("plain", "ultralytics", "inherit", "fitted", "balance", "auto", "plain-equal", "plain-equal-all")


@dataclass(frozen=True)
class Scenario:
    """What a student is trained for."""

    title: str
    family: str = "yolo26"
    teacher_family: str | None = None
    """None: the student's. From another one nothing can be inherited."""
    look: str = "digits"
    start: str | None = None
    """Look that student and teacher were trained on before; None: from random weights."""
    start_epochs: float = 1.0
    """Times the epochs of the size, for that training."""
    fraction: float = 1.0
    """Part of the images that has labels, for the teacher as well."""
    images: float = 1.0
    """Times the training images of the size."""
    epochs: float = 1.0
    """Times the epochs of the size."""
    teacher_epochs: float = 1.0
    """Times the teacher's epochs of the size, beside `epochs`."""


SCENARIOS: dict[str, Scenario] = {
    "scratch": Scenario("from random weights"),
    "scratch-hard": Scenario("from random weights", look="hard"),
    "scratch-strong-teacher": Scenario(
        "from random weights, with a teacher that was trained four times as long", teacher_epochs=4.0
    ),
    "fine-tune": Scenario("fine-tuned on printed digits", look="print", start="digits", epochs=0.5),
    "fine-tune-long": Scenario(
        "fine-tuned on printed digits, trained four times as long before",
        look="print",
        start="digits",
        start_epochs=4.0,
        epochs=0.5,
    ),
    "few-labels": Scenario("with a tenth of the labels", fraction=LABELLED, images=3.0, epochs=3.0),
    "family-11": Scenario("YOLO11 from random weights", family="yolo11"),
    "family-v8": Scenario("YOLOv8 from random weights", family="yolov8"),
    "cross-family": Scenario("from random weights, with a YOLO11 as teacher", teacher_family="yolo11"),
}


@dataclass(frozen=True)
class Size:
    """How much is trained."""

    train: int
    val: int
    imgsz: int
    epochs: int
    teacher_epochs: int
    batch: int
    optimizer: str
    """MuSGD, which is Ultralytics' choice for long trainings, iterates in bf16: a step takes several times as long on
    CPUs without AMX. AdamW costs little on all.
    """
    lr0: float


SIZES: dict[str, Size] = {
    "tiny": Size(32, 16, imgsz=64, epochs=2, teacher_epochs=2, batch=8, optimizer="AdamW", lr0=0.004),
    "quick": Size(400, 150, imgsz=128, epochs=10, teacher_epochs=20, batch=8, optimizer="AdamW", lr0=0.004),
    "full": Size(1500, 400, imgsz=128, epochs=15, teacher_epochs=60, batch=16, optimizer="MuSGD", lr0=0.01),
}
