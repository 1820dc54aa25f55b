"""Scores the teacher and a baseline on this run's validation images, on all ranks."""

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
from distill_trainer.models.loading import load_verified
from distill_trainer.models.setup import Prepared
from distill_trainer.process.rank.context import RankContext
from distill_trainer.training.evaluation.epoch_end import validate_with_telemetry
from distill_trainer.training.evaluation.scores import Score, cached_score
from distill_trainer.training.evaluation.validate import ValData, ValMetrics
from distill_trainer.training.parallel.collectives import any_rank


@dataclass(frozen=True)
class Comparison:
    """Validates other models under the same conditions as the student."""

    data: ValData
    prepared: Prepared
    context: RankContext
    half: bool
    """Validate in fp16 (CUDA only)."""

    def score(self, model: Any, name: str, sha256: str, stop_error: Callable[[], Stopped]) -> Score:
        """Score of `model` (a full Ultralytics model), on every rank; cached as `name`.json in the run's folder.

        On a stop request, raises what `stop_error` returns.
        """
        model.args = self.prepared.arguments

        def measure() -> ValMetrics:
            model.to(self.data.environment.device)
            metrics = validate_with_telemetry(model, self.data, self.context, self.half, stop_error)
            model.cpu()
            return metrics

        return cached_score(
            self.context.files.root / f"{name}.json",
            self.data.environment,
            sha256=sha256,
            dataset=self.prepared.dataset.digest,
            imgsz=self.prepared.imgsz,
            measure=measure,
        )

    def score_baseline(self, directories: Directories, name: str, stop_error: Callable[[], Stopped]) -> Baseline:
        """Score the run or file named by spec.report.baseline. Problems are returned, not raised."""
        model, path, sha256, problem = None, None, "", None
        try:
            model, path, sha256 = load_baseline(directories, name, self.prepared)
        except TrainerError as error:
            problem = error.message
        if any_rank(problem is not None, self.data.environment.device):  # all ranks must validate, or none
            return Baseline(name, path, None, problem or "another rank cannot read it; see its log")
        return Baseline(name, path, self.score(model, "baseline", sha256, stop_error), None)


@dataclass(frozen=True)
class Baseline:
    """A model to compare with."""

    name: str
    """Its name in the job."""
    path: Path | None
    score: Score | None
    problem: str | None
    """Why there is no score, in one line."""


def load_baseline(directories: Directories, name: str, prepared: Prepared) -> tuple[Any, Path, str]:
    """The model, its file and the file's SHA-256. Raises Permanent if it cannot be compared with the student."""
    path = find_baseline(directories, name)
    model, sha256 = load_verified(path, None)
    _check(model, name, prepared)
    return model, path, sha256


def find_baseline(directories: Directories, name: str) -> Path:
    """The file `name`, or the best weights of the job `name`, on the checkpoints or the models volume.

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
        " volume; correct the name, or wait until that job has weights",
    )


def _check(model: Any, name: str, prepared: Prepared) -> None:
    """Raise Permanent if the model's detections cannot be compared with the student's."""
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
                f"report.baseline {name} and the student differ in {what} ({_shorten(theirs)} and "
                f"{_shorten(ours)}); choose a run on the same data set",
            )


def _shorten(value: object) -> str:
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
