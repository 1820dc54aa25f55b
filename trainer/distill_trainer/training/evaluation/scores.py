"""Validation scores of finished models, measured once per job and cached in a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_trainer.checkpoint.store.storage import atomic_write
from distill_trainer.training.evaluation.validate import ValMetrics
from distill_trainer.training.parallel.collectives import broadcast_state
from distill_trainer.training.parallel.environment import Environment


@dataclass(frozen=True)
class Score:
    """Metrics of a model, with the model file, data set and image size that they belong to."""

    sha256: str
    """Digest of the model file."""
    dataset: str
    """Digest of the data set."""
    imgsz: int
    map50: float
    map50_95: float
    precision: float
    recall: float
    per_class: dict[str, float]
    """mAP50-95 by class name, for classes that occur in the validation split."""

    @classmethod
    def of(cls, metrics: ValMetrics, *, sha256: str, dataset: str, imgsz: int) -> Score:
        """The score for the metrics of a validation."""
        return cls(
            sha256,
            dataset,
            imgsz,
            metrics.map50,
            metrics.map,
            metrics.precision,
            metrics.recall,
            dict(metrics.per_class),
        )


def cached_score(
    path: Path,
    environment: Environment,
    *,
    sha256: str,
    dataset: str,
    imgsz: int,
    measure: Callable[[], ValMetrics],
) -> Score:
    """The score in `path` if it is for the same model, data set and image size; otherwise `measure` it and cache it.

    `measure` is called on all ranks or on none. Only rank 0 accesses the file.
    """
    cached = _read(path) if environment.is_main else None
    shared = broadcast_state(asdict(cached) if cached else None, environment.device)
    if shared is not None:
        cached = Score(**shared)
        if (cached.sha256, cached.dataset, cached.imgsz) == (sha256, dataset, imgsz):
            return cached
    score = Score.of(measure(), sha256=sha256, dataset=dataset, imgsz=imgsz)
    if environment.is_main:
        atomic_write(path, json.dumps(asdict(score)).encode())
    return score


def _read(path: Path) -> Score | None:
    """The cached score; None if it cannot be read, because it can be measured again."""
    try:
        return Score(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
