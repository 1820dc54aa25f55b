"""The runs that a scenario's arms make. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.accuracy.arms import ARMS, SCENARIOS, SIZES, SUFFIX, UNLABELLED, Arm, Size
from benchmarks.accuracy.run import Data, Run
from distill_api.spec.recipe import auto

TEACHER_SEED = 100
STUDENT_SCALE, TEACHER_SCALE = "n", "s"
FINE_TUNING = 4
"""Models that have learned before are trained with a learning rate that is so much lower."""


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
        scenario = SCENARIOS[self.scenario]
        for name in self.arms:
            if ARMS[name].unlabelled and scenario.fraction == 1:
                raise ValueError(f"arm {name} needs images without labels, which scenario {self.scenario} has not")
            if ARMS[name].inherits and scenario.teacher_family is not None:
                raise ValueError(f"arm {name} inherits, which scenario {self.scenario} with two families excludes")
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
        scenario = SCENARIOS[self.scenario]
        family = scenario.teacher_family if scale == TEACHER_SCALE else None
        return f"{family or scenario.family}{scale}{SUFFIX[self.task]}.yaml"

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
        epochs = SIZES[self.size].teacher_epochs * SCENARIOS[self.scenario].teacher_epochs
        arguments = self._training(round(epochs))
        return Run("teacher", TEACHER_SEED, self._data, self._start(TEACHER_SCALE), training=arguments)

    def run(self, arm: str, seed: int) -> Run:
        """One arm's run with the scenario's own number of epochs."""
        rule = ARMS[arm]
        return Run(
            arm,
            seed,
            self._data,
            self._start(STUDENT_SCALE),
            teacher=self.teacher if rule.teacher else None,
            trainer=rule.trainer,
            training={**self._training(SIZES[self.size].epochs), **rule.training},
            spec=self._auto() if rule.auto else self._spec(rule),
            switches=rule.switches,
        )

    def _spec(self, rule: Arm) -> Mapping[str, Any]:
        if SCENARIOS[self.scenario].teacher_family is None or not rule.teacher or rule.trainer != "ours":
            return rule.spec
        return {**rule.spec, "distillation": {**rule.spec.get("distillation", {}), "allowCrossFamily": True}}

    def _auto(self) -> dict[str, Any]:
        """The fields themselves, so that a run is known by what was trained."""
        scenario = SCENARIOS[self.scenario]
        few = scenario.fraction < 1
        return auto(unlabelled=few) | (UNLABELLED if few else {})

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
                arguments = dict(self.run(name, seed).training) | training(
                    SIZES[self.size], epochs, plain.training["lr0"]
                )
                found.append(replace(self.run(name, seed), training=arguments))
        return found


def equal_epochs(epochs: int, seconds: float, budget: float) -> int:
    """Epochs of a training that fit into `budget` seconds if `epochs` took `seconds`; never fewer than `epochs`."""
    return max(epochs, round(epochs * budget / seconds))
