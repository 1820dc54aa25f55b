"""Jobs side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from distill_cli.views import text
from distill_cli.views.changes import flat
from distill_cli.views.job.attempts import cost
from distill_cli.views.job.curves import Curves
from distill_client import Job

_UNTOLD = ("suspend", "image", "volumes", "scheduling", "template", "ttlSecondsAfterFinished", "imagePullSecrets")
"""Fields of spec that say nothing about the result."""


@dataclass(frozen=True)
class CompareView:
    """Rows of texts, a column for each job."""

    names: list[str]
    settings: dict[str, list[str]]
    """Fields of spec that differ."""
    outcome: dict[str, list[str]]
    curves: list[Curves]
    best: int | None
    """Index of the job with the highest student mAP; None without any."""


def compare_view(jobs: Sequence[Job], curves: Mapping[str, Curves]) -> CompareView:
    """Compare jobs; `curves` by name."""
    specs = [flat(job.raw["spec"]) for job in jobs]
    fields = sorted({name for spec in specs for name in spec if name.partition(".")[0] not in _UNTOLD})
    different = {
        f: [_shown(spec.get(f)) for spec in specs] for f in fields if len({_shown(s.get(f)) for s in specs}) > 1
    }
    maps = [student_map(job) for job in jobs]
    known = [(value, index) for index, value in enumerate(maps) if value is not None]
    costs = [cost(job) for job in jobs]
    outcome = {
        "phase": [str(job.phase) for job in jobs],
        "student mAP": [text.score(value) for value in maps],
        "teacher mAP": [text.score(teacher_map(job)) for job in jobs],
        "of the teacher's": [text.percent(_of_teacher(job)) for job in jobs],
        "epochs": [_epochs(job) for job in jobs],
        "images/s": [text.number(p.images_per_second if (p := job.status.progress) else None) for job in jobs],
        "goodput": [text.percent(g.ratio if (g := job.status.goodput) else None) for job in jobs],
        "restarts": [job.status.restarts for job in jobs],
        "cost": [f"{c.total:,.2f} {c.unit}" for c in costs],
    }
    return CompareView(
        names=[job.name for job in jobs],
        settings=different,
        outcome=outcome,
        curves=[curves.get(job.name, Curves()) for job in jobs],
        best=max(known)[1] if known else None,
    )


def student_map(job: Job) -> float | None:
    """The result's, or the last validation's."""
    result, progress = job.status.result, job.status.progress
    if result is not None and result.student_map is not None:
        return result.student_map
    return progress.student_map if progress else None


def teacher_map(job: Job) -> float | None:
    """The teacher's on the same images."""
    result, progress = job.status.result, job.status.progress
    if result is not None and result.teacher_map is not None:
        return result.teacher_map
    return progress.teacher_map if progress else None


def _of_teacher(job: Job) -> float | None:
    """The student's mAP as a part of its teacher's."""
    student, teacher = student_map(job), teacher_map(job)
    return student / teacher if student is not None and teacher else None


def _epochs(job: Job) -> str:
    progress = job.status.progress
    return f"{progress.epoch}/{progress.epochs}" if progress and progress.epochs else text.NONE


def _shown(value: object) -> str:
    return text.NONE if value is None else str(value)
