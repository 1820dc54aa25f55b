"""Merges rank 0's reports into status.progress and the attempt, and decides when the status is written."""

from datetime import datetime, timedelta

from distill_api.pod.report import TrainerStatus
from distill_api.status import Attempt, DistillJobStatus, Progress, Result
from distill_operator.types import attempts
from distill_operator.types.observed import Observed, PodFacts

DIGITS = {
    "student_map": 4,
    "teacher_map": 4,
    "map_gap": 4,
    "distillation_loss": 4,
    "first_distillation_loss": 4,
    "images_per_second": 1,
}
"""Decimals that are kept."""
LONG_SECONDS = 86400.0
"""Longest time without progress that is stored."""
GOODPUT_WRITE_SECONDS = 60
"""Minimum time between status writes in which only goodput changes."""
MEASURED = (
    "images_per_second",
    "eta_seconds",
    "committed_at",
    "distillation_loss",
    "first_distillation_loss",
    "student_map",
    "teacher_map",
)
"""Fields that a trainer omits until it has measured them; map_gap and eta are computed from these."""


def folded(status: DistillJobStatus, observed: Observed, now: datetime) -> DistillJobStatus:
    """The status with the progress that the newest attempt's pods report. Steps never decrease."""
    attempt = attempts.newest(status)
    if attempt is None:
        return status
    progress = status.progress
    answer = observed.trainer
    if answer is not None and answer.attempt == attempt.number and not _replaced(attempt, answer):
        attempt = _moved(_counted(attempt, answer.execution), answer, now)
        if _knows_its_start(answer):
            progress = continued(progress, answer.progress)
            attempt = _answered(attempt, answer, now)
    for pod in observed.pods_of(attempt.number):
        attempt = _reported(attempt, pod)
        last = _last_progress(pod)
        progress = continued(progress, last) if last is not None else progress
    attempt = _placed(_with_lost_steps(status, attempt), observed)
    if progress is not None and _content(progress) != _content(status.progress):
        progress = progress.model_copy(update={"updated_at": now})
    else:
        progress = status.progress
    return attempts.with_newest(status, attempt).model_copy(update={"progress": progress})


def _replaced(attempt: Attempt, answer: TrainerStatus) -> bool:
    """Whether a later life of the attempt's gang has reported: what this one says is over."""
    return answer.execution is not None and answer.execution < (attempt.execution or 0)


def _counted(attempt: Attempt, execution: int | None) -> Attempt:
    """The attempt with its newest execution, whose rank 0 measures time anew."""
    another = attempt.execution is not None and execution is not None and execution > attempt.execution
    before = attempt.spent if another else attempt.spent_before
    return attempt.model_copy(update={"execution": _larger(attempt.execution, execution), "spent_before": before})


def _knows_its_start(answer: TrainerStatus) -> bool:
    """Whether the trainer has read its checkpoint; before that, it reports step 0."""
    return answer.resumed_from_step is not None or answer.steps_this_attempt > 0


def _moved(attempt: Attempt, answer: TrainerStatus, now: datetime) -> Attempt:
    moved_at = now - timedelta(seconds=int(min(answer.idle_seconds, LONG_SECONDS)))
    return attempt.model_copy(update={"moved_at": max(moved_at, attempt.moved_at or moved_at)})


def _answered(attempt: Attempt, answer: TrainerStatus, now: datetime) -> Attempt:
    step = _larger(attempt.step, answer.progress.step)
    moved = answer.steps_this_attempt > 0 and step != attempt.step
    started = attempt.running_at is None and answer.steps_this_attempt > 0
    return attempt.model_copy(
        update={
            "step": step,
            "committed_step": _larger(attempt.committed_step, answer.progress.committed_step),
            "resumed_from_step": _first(attempt.resumed_from_step, answer.resumed_from_step),
            "version_changes": attempt.version_changes or answer.version_changes,
            "spec_changes": attempt.spec_changes or answer.spec_changes,
            "running_at": now if started else attempt.running_at,
            "stepped_at": now if moved or started else attempt.stepped_at,
        }
    )


def _reported(attempt: Attempt, pod: PodFacts) -> Attempt:
    report = pod.end.report if pod.end else None
    if report is None or report.attempt != attempt.number:
        return attempt
    return _counted(attempt, report.execution).model_copy(
        update={
            "step": _larger(attempt.step, report.step or None),
            "committed_step": _larger(attempt.committed_step, report.committed_step),
            "resumed_from_step": _first(attempt.resumed_from_step, report.resumed_from_step),
            "version_changes": attempt.version_changes or report.version_changes,
            "spec_changes": attempt.spec_changes or report.spec_changes,
        }
    )


def _last_progress(pod: PodFacts) -> Progress | None:
    report = pod.end.report if pod.end else None
    if report is None or pod.rank != 0:
        return None
    begun = report.resumed_from_step is not None or report.step or report.result
    return report.progress if begun else None


def _placed(attempt: Attempt, observed: Observed) -> Attempt:
    """The attempt with the time at which the last of its pods was scheduled."""
    times = [pod.scheduled_at for pod in observed.pods_of(attempt.number) if pod.scheduled_at is not None]
    if attempt.scheduled_at is not None or len(times) < attempt.nodes:
        return attempt
    return attempt.model_copy(update={"scheduled_at": max(times)})


def _with_lost_steps(status: DistillJobStatus, attempt: Attempt) -> Attempt:
    before = attempts.last_step_before(status, attempt.number)
    if attempt.lost_steps is not None or attempt.resumed_from_step is None or before is None:
        return attempt
    return attempt.model_copy(update={"lost_steps": max(0, before - attempt.resumed_from_step)})


def result(observed: Observed, number: int) -> Result | None:
    """Rank 0's completion record."""
    reports = [pod.end.report for pod in observed.pods_of(number) if pod.rank == 0 and pod.end]
    return next((report.result for report in reports if report and report.result), None)


def continued(old: Progress | None, new: Progress) -> Progress:
    """The new progress, with old values where it has none yet, such as the loss right after a resume."""
    if old is None:
        return completed(new)
    kept = {name: getattr(old, name) for name in MEASURED if getattr(new, name) is None}
    return completed(new.model_copy(update=kept))


def completed(progress: Progress) -> Progress:
    """The progress rounded, and with the fields that are computed from others: mAP gap and ETA."""
    gap, eta = progress.map_gap, progress.eta
    if gap is None and progress.student_map is not None and progress.teacher_map is not None:
        gap = progress.teacher_map - progress.student_map
    if eta is None and progress.eta_seconds is not None:
        eta = duration(progress.eta_seconds)
    progress = progress.model_copy(update={"map_gap": gap, "eta": eta})
    values = {name: getattr(progress, name) for name in DIGITS}
    return progress.model_copy(
        update={name: round(value, DIGITS[name]) for name, value in values.items() if value is not None}
    )


def duration(seconds: int) -> str:
    """Like 45s, 12m, 1h20m or 3d4h: two units at most, as kubectl prints ages."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d{hours % 24}h"
    if hours:
        return f"{hours}h{minutes % 60}m"
    return f"{minutes}m" if minutes else f"{seconds}s"


def worth_writing(old: DistillJobStatus, new: DistillJobStatus, least_seconds: float) -> bool:
    """Whether to write the new status now. Progress alone is written `least_seconds` after the last write."""
    if old == new:
        return False
    if _without_progress(old) != _without_progress(new):
        return True
    before, after = _reported_at(old), _reported_at(new)
    if before == after:
        return _time_passed(old, new)
    return before is None or after is None or (after - before).total_seconds() >= least_seconds


def _time_passed(old: DistillJobStatus, new: DistillJobStatus) -> bool:
    """Whether goodput, which alone has changed, was last written long enough ago."""
    if old.goodput is None or new.goodput is None:
        return True
    return (new.goodput.accounted_until - old.goodput.accounted_until).total_seconds() >= GOODPUT_WRITE_SECONDS


def _reported_at(status: DistillJobStatus) -> datetime | None:
    attempt = attempts.newest(status)
    reported = (status.progress.updated_at if status.progress else None, attempt.moved_at if attempt else None)
    return max((moment for moment in reported if moment is not None), default=None)


def _without_progress(status: DistillJobStatus) -> DistillJobStatus:
    attempt = attempts.newest(status)
    if attempt is not None:
        blank = attempt.model_copy(update={"step": None, "committed_step": None, "stepped_at": None, "moved_at": None})
        status = attempts.with_newest(status, blank)
    timeless = [attempt.model_copy(update={"spent": None}) for attempt in status.attempts]
    return status.model_copy(update={"progress": None, "goodput": None, "attempts": timeless})


def _content(progress: Progress | None) -> Progress | None:
    return progress.model_copy(update={"updated_at": None}) if progress is not None else None


def _larger(old: int | None, new: int | None) -> int | None:
    return max((value for value in (old, new) if value is not None), default=None)


def _first(old: int | None, new: int | None) -> int | None:
    return old if old is not None else new
