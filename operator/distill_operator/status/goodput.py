"""Where a job's time goes: every second of the job is exactly one of six kinds.

The time of an attempt lasts from its start to the start of the next one, so there are no gaps. The time until all pods
are scheduled is waiting; training, stall and validation are as rank 0 measured them; the rest is restart: starting up,
noticing the end, terminating, backing off. Training becomes lost work in proportion to the steps that the next attempt
repeats. Time while the job is suspended is not counted. While an attempt is training, time is accounted for up to rank
0's last report.
"""

from collections.abc import Iterable
from datetime import datetime

from distill_api.constants import Outcome, Phase
from distill_api.pod.report import RankSeconds
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, Goodput, Spent
from distill_operator.types import attempts
from distill_operator.types.observed import Observed

KINDS = tuple(Spent.model_fields)
DIGITS = 1
"""Decimals of a second. Sums are computed from rounded numbers, so that they agree."""


def accounted(old: DistillJobStatus, new: DistillJobStatus, observed: Observed, now: datetime) -> DistillJobStatus:
    """The new status with the time up to now accounted for. `old` is the stored status."""
    newest = attempts.newest(new)
    if newest is None:
        return new
    until = _until(old, new, observed, now)
    kept = {attempt.number: attempt.spent for attempt in old.attempts if attempt.spent is not None}
    rewritten = []
    for attempt in new.attempts:
        duration, reported = total(kept.get(attempt.number, Spent())), None
        if attempt.number in (newest.number, old.attempt):  # an attempt may close and the next open in one pass
            duration += _grown(old, attempt, newest, until)
            reported = _measured(observed, attempt, now)
        share = lost_share(attempt, _lost_steps(attempt, new))
        rewritten.append(attempt.model_copy(update={"spent": spent(attempt, duration, reported, share)}))
    listed = {attempt.number for attempt in rewritten}
    dropped = [spent for number, spent in kept.items() if number not in listed]
    before = _difference(old.goodput or Spent(), kept.values())
    sums = _sum([before, *dropped, *(attempt.spent or Spent() for attempt in rewritten)])
    whole = total(sums)
    goodput = Goodput(
        **sums.model_dump(),
        ratio=round(sums.productive_seconds / whole, 4) if whole > 0 else None,
        accounted_until=until,
    )
    return new.model_copy(update={"attempts": rewritten, "goodput": goodput})


def spent(attempt: Attempt, duration: float, reported: RankSeconds | None, share_lost: float) -> Spent:
    """The kinds of an attempt's time, `duration` seconds in total whatever the trainer reports.

    The trainer's numbers count from when all pods were scheduled, on top of those of earlier executions of the attempt,
    and never fall below earlier ones in attempt.spent.
    """
    before = attempt.spent or Spent()
    waiting = min(duration, _waiting(attempt, duration))
    left = duration - waiting

    def measured(new: float, old: float) -> float:
        nonlocal left
        seconds = round(min(max(new, old), left), DIGITS)
        left -= seconds
        return seconds

    reported, earlier = reported or RankSeconds(), attempt.spent_before or Spent()
    trained = earlier.productive_seconds + earlier.lost_work_seconds
    validation = measured(reported.validation + earlier.validation_seconds, before.validation_seconds)
    checkpoint = measured(reported.checkpoint + earlier.checkpoint_stall_seconds, before.checkpoint_stall_seconds)
    training = measured(reported.training + trained, before.productive_seconds + before.lost_work_seconds)
    lost = round(training * share_lost, DIGITS)
    return Spent(
        productive_seconds=round(training - lost, DIGITS),
        checkpoint_stall_seconds=checkpoint,
        lost_work_seconds=lost,
        restart_seconds=max(0.0, round(left, DIGITS)),
        waiting_for_capacity_seconds=round(waiting, DIGITS),
        validation_seconds=validation,
    )


def lost_share(attempt: Attempt, lost_steps: int) -> float:
    """The fraction of an attempt's steps that was lost, from 0 to 1."""
    made = (attempt.step or 0) - (attempt.resumed_from_step or 0)
    return min(1.0, max(0, lost_steps) / made) if made > 0 else 0.0


def total(spent: Spent) -> float:
    """Seconds of all kinds."""
    return round(float(sum(getattr(spent, kind) for kind in KINDS)), DIGITS)


def _lost_steps(attempt: Attempt, status: DistillJobStatus) -> int:
    """Steps of the attempt that were lost: after the step that the next attempt resumed from, or until one has
    resumed, after the attempt's own last commit. An open attempt has lost none, because it may still commit.
    """
    if attempt.outcome in (Outcome.RUNNING, Outcome.SUCCEEDED) or attempt.step is None:
        return 0
    later = [other for other in status.attempts if other.number > attempt.number]
    resumed = next((other for other in later if other.resumed_from_step is not None), None)
    kept = resumed.resumed_from_step if resumed is not None else attempt.committed_step
    return attempt.step - (kept or 0)


def _waiting(attempt: Attempt, duration: float) -> float:
    if attempt.scheduled_at is not None:
        return _seconds(attempt.started_at, attempt.scheduled_at)
    if attempt.ended_at is not None and attempt.reason != Reason.SCHEDULING_TIMEOUT:
        return _seconds(attempt.started_at, attempt.ended_at)
    return duration  # also the time until a withdrawn attempt is tried again


def _until(old: DistillJobStatus, new: DistillJobStatus, observed: Observed, now: datetime) -> datetime:
    """Until when time is accounted for: while rank 0 does not answer, until its last report."""
    if old.goodput is None:
        return now
    newest = new.attempts[-1]
    trains = newest.running_at is not None and newest.reason is None and newest.number == old.attempt
    if (trains and not _answers(observed, newest)) or old.phase == new.phase == Phase.SUSPENDED:
        return old.goodput.accounted_until
    return max(now, old.goodput.accounted_until)


def _grown(old: DistillJobStatus, attempt: Attempt, newest: Attempt, until: datetime) -> float:
    """Seconds by which the attempt's time has grown since the stored status."""
    if attempt.number == newest.number and attempt.number != old.attempt:
        return _seconds(attempt.started_at, until)
    if old.phase == Phase.SUSPENDED:
        return 0.0
    since = old.goodput.accounted_until if old.goodput is not None else attempt.started_at
    return _seconds(since, until if attempt.number == newest.number else newest.started_at)


def _answers(observed: Observed, attempt: Attempt) -> bool:
    answer = observed.trainer
    return answer is not None and answer.attempt == attempt.number


def _measured(observed: Observed, attempt: Attempt, now: datetime) -> RankSeconds | None:
    """Rank 0's measured time: from its termination message, else from its last status."""
    reports = [pod.end.report for pod in observed.pods_of(attempt.number) if pod.rank == 0 and pod.end]
    for report in reports:
        if report is not None and report.attempt == attempt.number and report.seconds is not None:
            return report.seconds
    if observed.trainer is None or not _answers(observed, attempt):
        return None
    if observed.trainer.seconds is None and attempt.running_at is not None:  # a trainer that does not measure
        return RankSeconds(training=_seconds(attempt.running_at, now))
    return observed.trainer.seconds


def _sum(parts: Iterable[Spent]) -> Spent:
    listed = list(parts)
    return Spent(**{kind: round(sum(getattr(part, kind) for part in listed), DIGITS) for kind in KINDS})


def _difference(whole: Spent, parts: Iterable[Spent]) -> Spent:
    less = _sum(parts)
    return Spent(**{kind: round(getattr(whole, kind) - getattr(less, kind), DIGITS) for kind in KINDS})


def _seconds(since: datetime, until: datetime) -> float:
    return max(0.0, (until - since).total_seconds())
