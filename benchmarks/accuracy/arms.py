"""The tables of arms and scenarios, and the runs that they make. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from benchmarks.accuracy.data.datasets import LABELLED, WITHOUT_LABELS
from benchmarks.accuracy.run import Data, Run
from distill_api.spec.recipe import auto

SUFFIX = {"detect": "", "segment": "-seg", "pose": "-pose", "obb": "-obb"}
TEACHER_SEED = 100
FINE_TUNING = 4
"""Models that have learned before are trained with a learning rate that is so much lower."""


@dataclass(frozen=True)
class Arm:
    """A way to train the student."""

    title: str
    teacher: bool = False
    trainer: Literal["ours", "ultralytics"] = "ours"
    spec: Mapping[str, Any] = field(default_factory=dict)
    """Fields of a DistillJob's spec that differ from the defaults."""
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


INHERIT = {"student": {"init": "inherit"}}
THIRD = {"schedule": "stop", "until": {"fraction": 0.33}}
COSINE = {"schedule": "cosine", "until": {"fraction": 0.5}}
HALF = {"terms": [{"loss": "spkd"}], "share": 0.5, **COSINE}
HEAD = [{"loss": "bckd"}, {"loss": "iou"}]
UNLABELLED = {"dataset": {"unlabelled": {"images": WITHOUT_LABELS}}}
ARMS: dict[str, Arm] = {
    "plain": Arm("plain"),
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
    "inherit": Arm("inherit alone", teacher=True, spec=INHERIT | {"distillation": {"weight": 0}}),
    "inherit-importance": Arm(
        "inherit alone, channels by importance",
        teacher=True,
        spec={"student": {"init": "inherit", "inherit": {"channels": "importance"}}, "distillation": {"weight": 0}},
    ),
    "inherit-stop": Arm("inherit, `sl2` until a third", teacher=True, spec=INHERIT | {"distillation": THIRD}),
    "balance": Arm("`spkd` at half the task's gradient, cosine", teacher=True, spec={"distillation": HALF}),
    "inherit-balance": Arm(
        "inherit, `spkd` at half the task's gradient, cosine", teacher=True, spec=INHERIT | {"distillation": HALF}
    ),
    "inherit-terms": Arm(
        "inherit, `bckd` and `iou`, cosine to zero at half",
        teacher=True,
        spec=INHERIT | {"distillation": {"terms": HEAD, **COSINE}},
    ),
    "inherit-terms-half": Arm(
        "inherit, `bckd` and `iou` on half of the images, cosine to the end",
        teacher=True,
        spec=INHERIT | {"teacher": {"batchFraction": 0.5}, "distillation": {"terms": HEAD, "schedule": "cosine"}},
    ),
    "inherit-terms-quarter": Arm(
        "inherit, `bckd` and `iou` on a quarter of the images",
        teacher=True,
        spec=INHERIT | {"teacher": {"batchFraction": 0.25}, "distillation": {"terms": HEAD}},
    ),
    "inherit-all": Arm(
        "inherit, `spkd` at half the task's gradient with `bckd` and `iou`, cosine",
        teacher=True,
        spec=INHERIT | {"distillation": HALF | {"terms": [{"loss": "spkd"}, *HEAD]}},
    ),
    "unlabelled": Arm(
        "`bckd` and `iou` with as many unlabelled images",
        teacher=True,
        spec={"distillation": {"terms": HEAD}, **UNLABELLED},
        unlabelled=True,
    ),
    "inherit-unlabelled": Arm(
        "inherit, `bckd` and `iou` with as many unlabelled images",
        teacher=True,
        spec=INHERIT | {"distillation": {"terms": HEAD}, **UNLABELLED},
        unlabelled=True,
    ),
}
"""A new recipe is one line."""
DEFAULT_ARMS = ("plain", "ultralytics", "inherit", "balance", "auto", "plain-equal", "plain-equal-all")


@dataclass(frozen=True)
class Scenario:
    """What a student is trained for."""

    title: str
    family: str = "yolo26"
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


SCENARIOS: dict[str, Scenario] = {
    "scratch": Scenario("from random weights"),
    "scratch-hard": Scenario("from random weights", look="hard"),
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


def training(size: Size, epochs: int, lr0: float | None = None) -> dict[str, Any]:
    """Ultralytics' training arguments for a number of epochs; the last third is without mosaic."""
    return {
        "epochs": epochs,
        "batch": size.batch,
        "nbs": size.batch,
        "optimizer": size.optimizer,
        "lr0": lr0 or size.lr0,
        "lrf": 0.01,
        "cos_lr": True,
        "warmup_epochs": 1.0,
        "mosaic": 0.5,
        "close_mosaic": max(1, epochs // 3),
        "fliplr": 0.0,
        "workers": 0,
        "plots": False,
        "patience": 0,
    }


@dataclass(frozen=True)
class Plan:
    """The runs of a scenario."""

    scenario: str
    task: str
    size: str
    data_seed: int
    seeds: Sequence[int]
    arms: Sequence[str]

    def __post_init__(self) -> None:
        for name in self.arms:
            if ARMS[name].unlabelled and SCENARIOS[self.scenario].fraction == 1:
                raise ValueError(f"arm {name} needs images without labels, which scenario {self.scenario} has not")
            other = ARMS[name].as_long_as
            if other is not None and not {"plain", other} <= set(self.arms):
                raise ValueError(f"arm {name} needs the arms plain and {other}, whose seconds it is given")

    @property
    def name(self) -> str:
        """Names the table and the report."""
        size, data = [] if self.size == "quick" else [self.size], [f"data{self.data_seed}"] if self.data_seed else []
        return "-".join([self.scenario, self.task, *size, *data])

    @property
    def _data(self) -> Data:
        scenario, size = SCENARIOS[self.scenario], SIZES[self.size]
        return Data(scenario.look, self.task, round(size.train * scenario.images), size.val, size.imgsz, self.data_seed)

    def _model(self, scale: str) -> str:
        return f"{SCENARIOS[self.scenario].family}{scale}{SUFFIX[self.task]}.yaml"

    def _start(self, scale: str) -> str | Run:
        """What a model starts from: its architecture, or its training on the other look."""
        scenario, size = SCENARIOS[self.scenario], SIZES[self.size]
        if scenario.start is None:
            return self._model(scale)
        data, seed = replace(self._data, look=scenario.start), TEACHER_SEED + 1
        return Run(
            f"start of {scale}",
            seed,
            data,
            self._model(scale),
            training=training(size, round(size.epochs * scenario.start_epochs)),
        )

    def _training(self, epochs: int) -> dict[str, Any]:
        scenario, size = SCENARIOS[self.scenario], SIZES[self.size]
        lr0 = size.lr0 if scenario.start is None else size.lr0 / FINE_TUNING
        found = training(size, max(2, round(epochs * scenario.epochs)), lr0)
        return found if scenario.fraction == 1 else found | {"fraction": scenario.fraction}

    @property
    def teacher(self) -> Run:
        """The teacher, trained once whatever the seeds of the students."""
        arguments = self._training(SIZES[self.size].teacher_epochs)
        return Run("teacher", TEACHER_SEED, self._data, self._start("s"), training=arguments)

    def run(self, arm: str, seed: int) -> Run:
        """One arm's run with the scenario's own number of epochs."""
        rule = ARMS[arm]
        return Run(
            arm,
            seed,
            self._data,
            self._start("n"),
            teacher=self.teacher if rule.teacher else None,
            trainer=rule.trainer,
            training=self._training(SIZES[self.size].epochs),
            spec=self._auto() if rule.auto else rule.spec,
        )

    def _auto(self) -> dict[str, Any]:
        """The fields themselves, so that a run is known by what was trained."""
        scenario = SCENARIOS[self.scenario]
        few = scenario.fraction < 1
        return auto(weights=scenario.start is not None, unlabelled=few) | (UNLABELLED if few else {})

    def _seeds(self, arm: str) -> Sequence[int]:
        return self.seeds[:1] if ARMS[arm].once else self.seeds

    def runs(self) -> list[Run]:
        """The runs whose length does not depend on what others took, seed by seed, with the teacher first."""
        named = [arm for arm in self.arms if ARMS[arm].as_long_as is None]
        return [self.teacher, *(self.run(arm, seed) for seed in self.seeds for arm in named)]

    def equal_runs(self, seconds: Mapping[str, float]) -> list[Run]:
        """The runs that are as long as others: `seconds` has those of each run by its digest.

        Lengths follow from the first seed alone, so that more seeds later change nothing.
        """
        first = self.seeds[0]
        plain = self.run("plain", first)
        found = []
        for seed in self.seeds:
            for name in self.arms:
                if (other := ARMS[name].as_long_as) is None or seed not in self._seeds(name):
                    continue
                budget = seconds[self.run(other, first).digest]
                if ARMS[name].pays_teacher:
                    budget += seconds[self.teacher.digest]
                epochs = equal_epochs(plain.epochs, seconds[plain.digest], budget)
                arguments = self.run(name, seed).training | training(SIZES[self.size], epochs, plain.training["lr0"])
                found.append(replace(self.run(name, seed), training=arguments))
        return found


def equal_epochs(epochs: int, seconds: float, budget: float) -> int:
    """Epochs of a training that fit into `budget` seconds if `epochs` took `seconds`; never fewer than `epochs`."""
    return max(epochs, round(epochs * budget / seconds))
