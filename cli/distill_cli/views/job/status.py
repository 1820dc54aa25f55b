"""Everything about one job, for `distill status`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from distill_api.constants import ConditionType, Phase
from distill_cli.views import text
from distill_cli.views.job.attempts import AttemptRow, attempt_rows, shares
from distill_cli.views.job.curves import Curves
from distill_cli.views.job.pods import EventRow, PodRow, doomed, event_rows, pod_rows, telling
from distill_cli.views.row import eta, hardware, pair
from distill_client import Job
from distill_client.apiserver.kinds import Object

LAST_EVENTS = 6


@dataclass(frozen=True)
class ProgressView:
    """How far the training is."""

    fraction: float
    epoch: str
    step: str
    eta: str
    images_per_second: str
    checkpoint: str
    """Committed step and its age; empty before the first."""
    stale: bool
    """Whether the newest checkpoint is older than three intervals, and at least two minutes."""


@dataclass(frozen=True)
class StatusView:
    """The status screen."""

    namespace: str
    name: str
    phase: str
    tone: str
    """good, busy, bad or idle."""
    headline: str
    """What the operator says is happening."""
    subject: str
    """Student, teacher, data, recipe."""
    size: str
    """Nodes and accelerators."""
    times: str
    progress: ProgressView | None
    student_map: float | None
    teacher_map: float | None
    gap: float | None
    loss: float | None
    first_loss: float | None
    curves: Curves
    goodput: dict[str, float]
    """Seconds by word."""
    ratio: float | None
    restarts: str
    attempts: list[AttemptRow]
    pods: list[PodRow]
    events: list[EventRow]
    result: str
    notes: list[str]
    """Conditions that are not as they should be."""


def status_view(
    job: Job,
    pods: Sequence[Object],
    events: Sequence[Object],
    curves: Curves,
    now: datetime,
    *,
    claims: Sequence[Object] = (),
) -> StatusView:
    """The view; `events` are the job's, oldest first, and `claims` its claims."""
    status, progress = job.status, job.status.progress
    lost = doomed(job, claims)
    goodput, rows = status.goodput, pod_rows(pods, job.status.attempt)
    return StatusView(
        namespace=job.namespace,
        name=job.name,
        phase="Deleting" if job.deleting else str(status.phase),
        tone=_tone(status.phase),
        headline=_headline(job),
        subject=_subject(job),
        size=_size(job),
        times=_times(job, now),
        progress=progress_view(job, now),
        student_map=progress.student_map if progress else None,
        teacher_map=progress.teacher_map if progress else None,
        gap=progress.map_gap if progress else None,
        loss=progress.distillation_loss if progress else None,
        first_loss=progress.first_distillation_loss if progress else None,
        curves=curves,
        goodput=shares(goodput) if goodput else {},
        ratio=goodput.ratio if goodput else None,
        restarts=_restarts(job),
        attempts=attempt_rows(job, now),
        pods=rows,
        events=[event for event in event_rows(events, job.name) if telling(event, rows)][-LAST_EVENTS:],
        result=_result(job),
        notes=[*_notes(job), *(f"claim {name} is being deleted ({volumes})" for name, volumes in lost.items())],
    )


def _tone(phase: Phase) -> str:
    if phase in (Phase.RUNNING, Phase.SUCCEEDED):
        return "good"
    if phase == Phase.FAILED:
        return "bad"
    return "idle" if phase == Phase.SUSPENDED else "busy"


def _headline(job: Job) -> str:
    status = job.status
    if status.observed_generation is None or status.observed_generation < 0:
        return "the operator has not seen the job yet"
    kind = ConditionType.FAILED if status.phase == Phase.FAILED else ConditionType.RUNNING
    kind = ConditionType.COMPLETE if status.phase == Phase.SUCCEEDED else kind
    found = job.condition(kind)
    return f"{found.reason}: {found.message}".rstrip(": ") if found else ""


def _subject(job: Job) -> str:
    parts = [pair(job), f"data {job.spec.dataset.config}"]
    return " · ".join([*parts, "recipe auto"] if job.spec.recipe == "auto" else parts)


def _size(job: Job) -> str:
    spec = job.spec
    minimum = f", at least {spec.elastic.min_nodes}" if spec.elastic else ""
    return f"{job.status.nodes or f'0/{spec.nodes}'} nodes{minimum}, each {hardware(job)}"


def _times(job: Job, now: datetime) -> str:
    status = job.status
    if status.started_at is None:
        return f"created {text.since(job.created, now)} ago"
    if status.finished_at is not None:
        took = text.duration((status.finished_at - status.started_at).total_seconds())
        return f"took {took}, ended {text.since(status.finished_at, now)} ago"
    return f"started {text.since(status.started_at, now)} ago"


def progress_view(job: Job, now: datetime) -> ProgressView | None:
    """The progress; None before rank 0 has reported any."""
    progress = job.status.progress
    if progress is None or not progress.steps:
        return None
    interval = job.spec.checkpoint.interval_seconds
    age = (now - progress.committed_at).total_seconds() if progress.committed_at else None
    allowed = 3 * interval if isinstance(interval, int) else 1800
    committed = f"step {job.committed_step:,}" if job.committed_step else ""
    running = job.status.phase == Phase.RUNNING
    if committed and age is not None and running:
        behind = max(0, progress.step - job.committed_step)
        committed += f", {text.duration(age)} ago, {text.plural(behind, 'step')} since"
    return ProgressView(
        fraction=min(1.0, progress.step / progress.steps),
        epoch=f"{progress.epoch}/{progress.epochs}",
        step=f"{progress.step:,}/{progress.steps:,}",
        eta=eta(job),
        images_per_second=text.number(progress.images_per_second) if running else text.NONE,
        checkpoint=committed,
        stale=running and age is not None and age > max(120, allowed),
    )


def _restarts(job: Job) -> str:
    status, recovery = job.status, job.spec.recovery
    budget = f" of {recovery.max_preemptions}" if recovery.max_preemptions is not None else ""
    return (
        f"{text.plural(status.failures, 'failure')} of {recovery.max_failures}, "
        f"{text.plural(status.preemptions, 'disruption')}{budget}"
    )


def _result(job: Job) -> str:
    result = job.status.result
    if result is None:
        return ""
    maps = f"student {text.score(result.student_map)}, teacher {text.score(result.teacher_map)}"
    return f"{result.checkpoint}, mAP50-95 {maps}"


def _notes(job: Job) -> list[str]:
    wrong = {ConditionType.VALIDATED: "False", ConditionType.DEGRADED: "True"}
    known = {c.reason for c in job.status.conditions if c.type in (ConditionType.FAILED, ConditionType.RUNNING)}
    found = [c for c in job.status.conditions if wrong.get(c.type) == c.status and c.reason not in known]
    notes = [f"{c.type}: {c.reason}: {c.message}".rstrip(": ") for c in found]
    avoided = [f"{node.node} ({node.reason} in attempt {node.attempt})" for node in job.status.avoided_nodes]
    return [*notes, *([f"Avoided nodes: {', '.join(avoided)}"] if avoided else [])]
