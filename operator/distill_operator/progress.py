"""Folds what rank 0 says into status.progress and the attempt, and decides when that is worth a write."""

from datetime import datetime

from distill_api.report import TrainerStatus
from distill_api.status import Attempt, DistillJobStatus, Progress, Result
from distill_operator import attempts
from distill_operator.observed import Observed, PodFacts


def folded(status: DistillJobStatus, observed: Observed, now: datetime) -> DistillJobStatus:
    """The status with everything that the newest attempt's pods tell of their progress. Steps never go down."""
    attempt = attempts.newest(status)
    if attempt is None:
        return status
    progress = status.progress
    answer = observed.trainer
    if answer is not None and answer.job == observed.name and answer.attempt == attempt.number:
        progress = completed(answer.progress)
        attempt = _answered(attempt, answer, now)
    for pod in observed.pods_of(attempt.number):
        attempt = _reported(attempt, pod)
        progress = _last_progress(pod) or progress
    attempt = _with_lost_steps(status, attempt)
    if progress is not None and _content(progress) != _content(status.progress):
        progress = progress.model_copy(update={"updated_at": now})
    else:
        progress = status.progress
    return attempts.rewritten(status, attempt).model_copy(update={"progress": progress})


def _answered(attempt: Attempt, answer: TrainerStatus, now: datetime) -> Attempt:
    step = _larger(attempt.step, answer.progress.step)
    moved = answer.steps_this_attempt > 0 and step != attempt.step
    started = attempt.running_at is None and answer.steps_this_attempt > 0
    return attempt.model_copy(
        update={
            "step": step,
            "committed_step": _larger(attempt.committed_step, answer.progress.committed_step),
            "resumed_from_step": _first(attempt.resumed_from_step, answer.resumed_from_step),
            "running_at": now if started else attempt.running_at,
            "stepped_at": now if moved or started else attempt.stepped_at,
        }
    )


def _reported(attempt: Attempt, pod: PodFacts) -> Attempt:
    report = pod.end.report if pod.end else None
    if report is None or report.attempt != attempt.number:
        return attempt
    return attempt.model_copy(
        update={
            "step": _larger(attempt.step, report.step),
            "committed_step": _larger(attempt.committed_step, report.committed_step),
            "resumed_from_step": _first(attempt.resumed_from_step, report.resumed_from_step),
        }
    )


def _last_progress(pod: PodFacts) -> Progress | None:
    report = pod.end.report if pod.end else None
    return completed(report.progress) if report and report.progress and pod.rank == 0 else None


def _with_lost_steps(status: DistillJobStatus, attempt: Attempt) -> Attempt:
    before = attempts.last_step_before(status, attempt.number)
    if attempt.lost_steps is not None or attempt.resumed_from_step is None or before is None:
        return attempt
    return attempt.model_copy(update={"lost_steps": max(0, before - attempt.resumed_from_step)})


def result(observed: Observed, number: int) -> Result | None:
    """Rank 0's completion record."""
    reports = [pod.end.report for pod in observed.pods_of(number) if pod.rank == 0 and pod.end]
    return next((report.result for report in reports if report and report.result), None)


def completed(progress: Progress) -> Progress:
    """With the fields filled in that follow from others: the gap to the teacher and the ETA in words."""
    gap, eta = progress.map_gap, progress.eta
    if gap is None and progress.student_map is not None and progress.teacher_map is not None:
        gap = round(progress.teacher_map - progress.student_map, 6)
    if eta is None and progress.eta_seconds is not None:
        eta = duration(progress.eta_seconds)
    return progress.model_copy(update={"map_gap": gap, "eta": eta})


def duration(seconds: int) -> str:
    """Like 45s, 12m, 1h20m or 3d4h: two units at most, as kubectl prints ages."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m" if minutes else f"{seconds}s"


def worth_writing(old: DistillJobStatus, new: DistillJobStatus, least_seconds: float) -> bool:
    """Whether the new status must be stored now. Mere progress waits until `least_seconds` after the last write."""
    if old == new:
        return False
    if _without_progress(old) != _without_progress(new):
        return True
    if old.progress is None or old.progress.updated_at is None:
        return True
    if new.progress is None or new.progress.updated_at is None:
        return True
    return (new.progress.updated_at - old.progress.updated_at).total_seconds() >= least_seconds


def _without_progress(status: DistillJobStatus) -> DistillJobStatus:
    attempt = attempts.newest(status)
    if attempt is not None:
        blank = attempt.model_copy(update={"step": None, "committed_step": None, "stepped_at": None})
        status = attempts.rewritten(status, blank)
    return status.model_copy(update={"progress": None})


def _content(progress: Progress | None) -> Progress | None:
    return progress.model_copy(update={"updated_at": None}) if progress is not None else None


def _larger(old: int | None, new: int | None) -> int | None:
    return max((value for value in (old, new) if value is not None), default=None)


def _first(old: int | None, new: int | None) -> int | None:
    return old if old is not None else new
