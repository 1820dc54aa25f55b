"""How well a finished model does on the validation images: measured once per job, and remembered."""

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
    """Metrics of a model, and what they were measured with."""

    sha256: str
    """Digest of the model's file."""
    dataset: str
    """Digest of the data set."""
    imgsz: int
    map50: float
    map50_95: float
    precision: float
    recall: float
    per_class: dict[str, float]
    """mAP50-95 by class name, for classes that occur."""

    @classmethod
    def of(cls, metrics: ValMetrics, *, sha256: str, dataset: str, imgsz: int) -> Score:
        """The score that a validation gave."""
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


def kept_score(
    path: Path,
    environment: Environment,
    *,
    sha256: str,
    dataset: str,
    imgsz: int,
    measure: Callable[[], ValMetrics],
) -> Score:
    """The score kept in `path` if it is of the same model, data set and image size; else `measure` it and keep it.

    `measure` is run by all ranks or by none. Only rank 0 touches the file.
    """
    known = _read(path) if environment.is_main else None
    shared = broadcast_state(asdict(known) if known else None, environment.device)
    if shared is not None:
        known = Score(**shared)
        if (known.sha256, known.dataset, known.imgsz) == (sha256, dataset, imgsz):
            return known
    score = Score.of(measure(), sha256=sha256, dataset=dataset, imgsz=imgsz)
    if environment.is_main:
        atomic_write(path, json.dumps(asdict(score)).encode())
    return score


def _read(path: Path) -> Score | None:
    """The kept score; None when there is none or it is not readable, for it can be measured again."""
    try:
        return Score(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
