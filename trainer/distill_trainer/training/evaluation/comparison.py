"""Scores finished models, the teacher and a baseline, on this run's validation images; all ranks together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill_api.constants import JobFile
from distill_api.errors import Permanent, Stopped, TrainerError
from distill_api.pod.run import Directories
from distill_api.reasons import Reason
from distill_trainer.models import pair
from distill_trainer.models.loading import check_sha256, load_checkpoint
from distill_trainer.models.setup import Prepared
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.evaluation.epoch_end import run_validation
from distill_trainer.training.evaluation.scores import Score, kept_score
from distill_trainer.training.evaluation.validate import ValData, ValMetrics
from distill_trainer.training.parallel.collectives import any_rank


@dataclass(frozen=True)
class Comparison:
    """What a model is scored with."""

    data: ValData
    prepared: Prepared
    context: RankContext
    half: bool
    """Validate in fp16 (CUDA only)."""

    def score(self, model: Any, name: str, sha256: str, on_stop: Callable[[], Stopped]) -> Score:
        """Score of `model`, a whole one, on every rank; remembered in `name`.json in the run's folder."""
        model.args = self.prepared.arguments

        def measure() -> ValMetrics:
            model.to(self.data.environment.device)
            metrics = run_validation(model, self.data, self.context, self.half, on_stop)
            model.cpu()
            return metrics

        return kept_score(
            self.context.files.root / f"{name}.json",
            self.data.environment,
            sha256=sha256,
            dataset=self.prepared.dataset.digest,
            imgsz=self.prepared.imgsz,
            measure=measure,
        )

    def baseline(self, directories: Directories, name: str, on_stop: Callable[[], Stopped]) -> Baseline:
        """Score the run or file that spec.report.baseline names; with a problem instead where that cannot be."""
        model, path, sha256, problem = None, None, "", None
        try:
            path = find_baseline(directories, name)
            sha256 = check_sha256(path, None)
            model = load_checkpoint(path)
            _check(model, name, self.prepared)
        except TrainerError as error:
            problem = error.message
        if any_rank(problem is not None, self.data.environment.device):  # all ranks validate, or none
            return Baseline(name, path, None, problem or "another rank cannot read it; see its log")
        return Baseline(name, path, self.score(model, "baseline", sha256, on_stop), None)


@dataclass(frozen=True)
class Baseline:
    """A run to compare with."""

    name: str
    """As the job names it."""
    path: Path | None
    score: Score | None
    problem: str | None
    """Why there is no score, in one line."""


def find_baseline(directories: Directories, name: str) -> Path:
    """The weights of the job `name`, or the file of that name, on the checkpoints volume or else on the models volume.

    Raises Permanent(ModelNotFound).
    """
    roots = [Path(root) for root in (directories.checkpoints, directories.models) if root is not None]
    for root in roots:
        for path in (root / name, root / name / JobFile.BEST):
            if path.is_file():
                return path
    raise Permanent(
        Reason.MODEL_NOT_FOUND,
        f"report.baseline {name} is neither a .pt file nor a job with {JobFile.BEST} on the checkpoints or models"
        " volume; correct it, or wait until that job has weights",
    )


def _check(model: Any, name: str, prepared: Prepared) -> None:
    """Raise Permanent for a model whose detections cannot be compared with the student's."""
    found, student = pair.facts(model, name), pair.facts(prepared.student, "student")
    pair.check_trainable(found)
    for what, theirs, ours in (
        ("task", found.task, student.task),
        ("class names", found.names, student.names),
        ("image channels", found.channels, student.channels),
    ):
        if theirs != ours:
            raise Permanent(
                Reason.PAIR_MISMATCH,
                f"report.baseline {name} has other {what} than the student ({_short(theirs)} instead of "
                f"{_short(ours)}); name a run on the same data set",
            )


def _short(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
