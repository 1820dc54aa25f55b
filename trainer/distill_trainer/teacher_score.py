"""The teacher's own mAP on the validation images: measured once per job, by the whole teacher, and remembered."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from distill_trainer.checkpoint.storage import atomic_write
from distill_trainer.distributed import broadcast_state
from distill_trainer.environment import Environment


@dataclass(frozen=True)
class TeacherScore:
    """mAP of the teacher, and what it was measured with."""

    sha256: str
    dataset: str
    """Digest of the data set."""
    imgsz: int
    map50: float
    map50_95: float


def teacher_score(
    path: Path,
    environment: Environment,
    *,
    sha256: str,
    dataset: str,
    imgsz: int,
    measure: Callable[[], tuple[float, float]],
) -> TeacherScore:
    """The score kept in `path` if it is of the same teacher, data set and image size; else `measure` it and keep it.

    `measure` is run by all ranks or by none, and returns (mAP50, mAP50-95). Only rank 0 touches the file.
    """
    known = _read(path) if environment.is_main else None
    shared = broadcast_state(asdict(known) if known else None, environment.device)
    if shared is not None:
        known = TeacherScore(**shared)
        if (known.sha256, known.dataset, known.imgsz) == (sha256, dataset, imgsz):
            return known
    map50, map50_95 = measure()
    score = TeacherScore(sha256, dataset, imgsz, map50, map50_95)
    if environment.is_main:
        atomic_write(path, json.dumps(asdict(score)).encode())
    return score


def _read(path: Path) -> TeacherScore | None:
    """The kept score; None when there is none or it is not readable, for it can be measured again."""
    try:
        return TeacherScore(**json.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError):
        return None
