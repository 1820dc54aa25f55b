"""One job as a row of `distill list`."""

from dataclasses import dataclass
from datetime import datetime

from distill_api.constants import ConditionType, Phase
from distill_cli.views import text
from distill_client import Job


@dataclass(frozen=True)
class Row:
    """What the list shows of a job; texts are ready to print."""

    namespace: str
    name: str
    phase: str
    nodes: str = text.NONE
    epoch: str = text.NONE
    student_map: str = text.NONE
    gap: str = text.NONE
    loss: str = text.NONE
    eta: str = text.NONE
    restarts: str = text.NONE
    age: str = text.NONE
    reason: str = text.NONE
    """Of the condition Running, where it says more than the phase."""
    pair: str = text.NONE
    """student ← teacher."""
    images_per_second: str = text.NONE
    goodput: str = text.NONE


def row(job: Job, now: datetime) -> Row:
    """The row of a job; of one that this version cannot read, what is certain."""
    age = text.since(job.created, now)
    if not job.readable:
        return Row(job.namespace, job.name, str(job.phase), age=age, reason="not readable")
    spec, status, progress = job.spec, job.status, job.status.progress
    loss = progress.distillation_loss if progress else None
    return Row(
        namespace=job.namespace,
        name=job.name,
        phase="Deleting" if job.deleting else str(status.phase),
        nodes=status.nodes or f"0/{spec.nodes}",
        epoch=f"{progress.epoch}/{progress.epochs}" if progress and progress.epochs else text.NONE,
        student_map=text.score(progress.student_map if progress else None),
        gap=text.score(progress.map_gap if progress else None),
        loss=text.score(loss),
        eta=eta(job),
        restarts=status.restarts,
        age=age,
        reason=_reason(job),
        pair=pair(job).replace(".yaml", "").replace(".pt", ""),
        images_per_second=text.number(progress.images_per_second if progress else None),
        goodput=text.percent(status.goodput.ratio if status.goodput else None),
    )


def eta(job: Job) -> str:
    """Time to the end of the training; only while it runs."""
    progress = job.status.progress
    if job.status.phase != Phase.RUNNING or progress is None:
        return text.NONE
    return text.duration(progress.eta_seconds)


def pair(job: Job) -> str:
    """Student and teacher in few letters."""
    teacher = job.spec.teacher
    return f"{job.spec.student.model} ← {teacher.model}" if teacher else job.spec.student.model


def hardware(job: Job) -> str:
    """What each pod has, as the end of a sentence."""
    spec = job.spec
    if not spec.accelerators.per_node:
        return "on CPUs"
    accelerators = f"with {spec.accelerators.per_node} × {spec.accelerators.resource}"
    return accelerators if spec.uses_cuda else f"{accelerators} (training on CPUs)"


def _reason(job: Job) -> str:
    running = job.condition(ConditionType.RUNNING)
    if running is None or running.reason in ("Training", "Completed", "SuspendedByUser"):
        return ""
    return running.reason
