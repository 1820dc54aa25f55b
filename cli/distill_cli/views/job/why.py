"""Why a job waits, restarted, is slow or failed: what the operator recorded, in sentences, with what to do."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.reasons import Reason
from distill_api.status import Attempt
from distill_cli.views import text
from distill_cli.views.job.attempts import PARTS, repeated_steps, restarts
from distill_cli.views.job.finding import Finding
from distill_cli.views.job.pods import PodRow, doomed, event_rows, pod_rows, telling
from distill_cli.views.job.ranks import RankTime, slow_ranks
from distill_cli.views.job.status import ProgressView, progress_view
from distill_client import Job
from distill_client.apiserver.kinds import Object

UNSEEN_SECONDS = 60
"""After which it is worth telling that the operator has not seen a job."""
GOOD_RATIO = 0.8
"""Goodput from which on a job is not called slow."""
LONG_ENOUGH = 600
"""Seconds after which goodput says something: before, a job has mostly started."""
MINOR_SHARE = 0.05
"""Share of the time below which a loss is not worth a finding."""
SHOWN_ATTEMPTS = 3


@dataclass(frozen=True)
class WhyView:
    """The answers, the most important first."""

    namespace: str
    name: str
    phase: str
    findings: list[Finding]


def why_view(
    job: Job,
    pods: Sequence[Object],
    events: Sequence[Object],
    now: datetime,
    attempts: int = SHOWN_ATTEMPTS,
    *,
    claims: Sequence[Object] = (),
    ranks: Sequence[RankTime] = (),
) -> WhyView:
    """The findings; `attempts`: how many ended attempts to explain; `claims`: the job's; `ranks`: those that answer."""
    found = [
        *_unseen(job, now),
        *_doomed(job, claims),
        *_state(job, pods, events, now),
        *_slow(job, now),
        *slow_ranks(job, ranks),
        *_ended(job, attempts),
    ]
    return WhyView(job.namespace, job.name, str(job.phase), found)


def remedy(reason: Reason) -> str:
    """What to do about a reason; empty for nothing."""
    said = reason.facts.remedy
    return "" if said in ("Nothing.", "Nothing: the job resumes.") else said


def _unseen(job: Job, now: datetime) -> Iterator[Finding]:
    seen, status = job.status.observed_generation, job.status
    if seen is not None and seen >= job.generation:
        return
    never = seen is None or seen < 0
    if never and job.created is not None and (now - job.created).total_seconds() < UNSEEN_SECONDS:
        yield Finding("The job is new.", "", "The operator has not seen it yet.", bad=False)
        return
    what = "the job" if never else f"the last change of the job (generation {job.generation})"
    yield Finding(
        "The operator is not answering." if never else "The last change is not in effect yet.",
        "",
        f"The operator has not seen {what}; it saw generation {seen if not never else 'none'}. "
        f"Everything below is as of then{f', phase {status.phase}' if not never else ''}.",
        todo="Run distill doctor: it checks that the operator runs, and that it watches this namespace.",
    )


def _doomed(job: Job, claims: Sequence[Object]) -> Iterator[Finding]:
    for name, volumes in doomed(job, claims).items():
        yield Finding(
            "A claim is being deleted.",
            "",
            f"Claim {name} ({volumes}) goes as soon as no pod uses it. The job then waits for it, and its files may be"
            " lost.",
            todo="A deletion cannot be undone. To keep the files, set persistentVolumeReclaimPolicy of the claim's"
            " volume to Retain now, and create the claim again with that volume when it is gone.",
        )


def _state(job: Job, pods: Sequence[Object], events: Sequence[Object], now: datetime) -> Iterator[Finding]:
    status = job.status
    if status.observed_generation is None or status.observed_generation < 0:
        return
    condition = job.condition(_KIND.get(status.phase, ConditionType.RUNNING))
    validated = job.condition(ConditionType.VALIDATED)
    if status.waiting is not None:
        waited = text.since(status.waiting.since, now)
        says = f"The job cannot create its pods. {status.waiting.reason.facts.cause} It has waited for {waited}."
        yield _finding("The job waits.", status.waiting.reason, says, [status.waiting.message])
    elif condition is not None:
        reason = Reason.read(condition.reason)
        evidence = [condition.message] if condition.message else []
        evidence += _seen(job, condition.message, pods, events)
        found = _finding(_title(job, now), reason, reason.facts.cause, evidence)
        again = f"If the spec was right, distill restart {job.name} --as NAME runs it again."
        yield replace(found, todo=f"{found.todo} {again}".strip()) if status.phase == Phase.FAILED else found
    repeats = status.waiting is not None or condition is None or (validated and validated.reason == condition.reason)
    if validated is not None and validated.status == "False" and not repeats:
        reason = Reason.read(validated.reason)
        yield _finding("The specification is not accepted.", reason, reason.facts.cause, [validated.message])


_KIND = {Phase.SUCCEEDED: ConditionType.COMPLETE, Phase.FAILED: ConditionType.FAILED}
_TITLES = {
    Phase.PENDING: "The job is pending.",
    Phase.QUEUED: "A queue holds the job.",
    Phase.STARTING: "The attempt is starting.",
    Phase.RUNNING: "The job is training.",
    Phase.RECOVERING: "The job recovers.",
    Phase.SUSPENDED: "The job is suspended.",
    Phase.SUCCEEDED: "The job is done.",
    Phase.FAILED: "The job failed.",
}


def _title(job: Job, now: datetime) -> str:
    status = job.status
    if status.phase == Phase.RECOVERING and status.next_attempt_at is not None and status.next_attempt_at > now:
        wait = text.duration((status.next_attempt_at - now).total_seconds())
        return f"The job recovers; the next attempt starts in {wait}."
    return _TITLES.get(status.phase, f"The phase is {status.phase}.")


def _finding(title: str, reason: Reason, says: str, evidence: Sequence[str]) -> Finding:
    bad = reason.facts.warning or reason.facts.wait != "none" or reason in _PROBLEMS
    return Finding(title, str(reason), says, [line for line in evidence if line], remedy(reason), bad)


_PROBLEMS = (Reason.UNSCHEDULABLE, Reason.BACKING_OFF)


def _seen(job: Job, said: str, pods: Sequence[Object], events: Sequence[Object]) -> list[str]:
    """What pods and their newest warnings say beyond the condition's message, while an attempt is not training."""
    if job.status.phase not in (Phase.QUEUED, Phase.STARTING, Phase.PENDING):
        return []
    rows = pod_rows(pods, job.status.attempt)
    states: dict[str, list[PodRow]] = {}
    for row in rows:
        if not row.ok and not (row.detail and row.detail in said):
            states.setdefault(f"{row.state}{f': {row.detail}' if row.detail else ''}", []).append(row)
    lines = [f"{_pods(same)}: {state}" for state, same in states.items()]
    warnings = [row for row in event_rows(events, job.name) if row.kind == "Warning" and row.about]
    own = [row for row in warnings if row.of_attempt in (None, job.status.attempt)]
    new = [row for row in own if telling(row, rows) and row.message not in said]
    return [*lines[:4], *dict.fromkeys(f"{row.about}: {row.reason}: {row.message}" for row in new[-3:])]


def _pods(rows: Sequence[PodRow]) -> str:
    if len(rows) == 1:
        return f"pod {rows[0].name}"
    return f"pods {', '.join(str(row.rank) for row in rows[:8])}{', …' if len(rows) > 8 else ''}"


def _slow(job: Job, now: datetime) -> Iterator[Finding]:
    status = job.status
    degraded = job.condition(ConditionType.DEGRADED)
    if degraded is not None and degraded.status == "True" and not status.over:
        reason = Reason.read(degraded.reason)
        yield _finding("It runs on fewer nodes than it asks for.", reason, reason.facts.cause, [degraded.message])
    progress = progress_view(job, now)
    if progress is not None and progress.stale:
        yield _stale(job, progress)
    goodput = status.goodput
    if goodput is None or goodput.ratio is None or goodput.ratio >= GOOD_RATIO:
        return
    spent = {name: float(getattr(goodput, name)) for name in PARTS}
    whole = sum(spent.values())
    losses = sorted(((s, name) for name, s in spent.items() if name in _LOSS_TODO), reverse=True)
    worth = [(seconds, name) for seconds, name in losses if seconds > MINOR_SHARE * whole]
    if not worth or whole < LONG_ENOUGH:
        return
    yield Finding(
        f"{text.percent(goodput.ratio)} of the time was training.",
        "",
        "Most of the rest was " + " and ".join(PARTS[name] for _, name in worth[:2]) + ".",
        [f"{PARTS[name]}: {text.duration(seconds)}, {text.percent(seconds / whole)}" for seconds, name in worth],
        " ".join(_LOSS_TODO[name] for _, name in worth[:2]),
        bad=goodput.ratio < 0.5,
    )


_LOSS_TODO = {
    "restart_seconds": "Fewer restarts help most: the ended attempts below have their causes.",
    "lost_work_seconds": "A lower spec.checkpoint.intervalSeconds, or auto, repeats fewer steps.",
    "waiting_for_capacity_seconds": "spec.elastic trains on fewer nodes meanwhile; or use a higher PriorityClass.",
    "checkpoint_stall_seconds": "Set spec.checkpoint.intervalSeconds to auto, or use faster storage.",
    "validation_seconds": "Validation takes long: a smaller validation split, or training.val false, shortens it.",
}


def _stale(job: Job, progress: ProgressView) -> Finding:
    return Finding(
        "The newest checkpoint is old.",
        "",
        f"Checkpoints are due every {job.spec.checkpoint.interval_seconds} seconds.",
        [progress.checkpoint],
        f"distill logs {job.name} --rank 0 shows whether commits fail or the storage is slow.",
    )


def _ended(job: Job, count: int) -> Iterator[Finding]:
    ended = [attempt for attempt in job.status.attempts if attempt.outcome not in (Outcome.RUNNING, Outcome.SUCCEEDED)]
    shown = job.condition(_KIND.get(job.status.phase, ConditionType.RUNNING))
    repeated, again = repeated_steps(job), restarts(job)
    for attempt in list(reversed(ended))[:count]:
        newest = attempt.number == job.status.attempt
        known = newest and shown is not None and attempt.reason == shown.reason
        yield _end_of(attempt, repeated.get(attempt.number, 0), again.get(attempt.number, ""), known=known)


def _end_of(attempt: Attempt, lost: int, restart: str, *, known: bool) -> Finding:
    """`restart`: how the next attempt came to train, or empty. `known`: its reason was already explained."""
    reason = attempt.reason
    cause = reason.facts.cause if reason else "The reason was not recorded."
    cause = "The cause is above." if known else cause
    at = f" after {text.duration((attempt.ended_at - attempt.started_at).total_seconds())}" if attempt.ended_at else ""
    where = f" on {attempt.node}" if attempt.node else ""
    charged = _CHARGED.get(attempt.outcome, "It was not charged to a budget.")
    charged = "It was not tried again, because a retry cannot fix it." if reason and reason.facts.permanent else charged
    repeats = f" {text.plural(lost, 'step')} had to be repeated." if lost else ""
    saved = f" It had committed step {attempt.committed_step:,}." if attempt.committed_step else ""
    message = [attempt.message] if attempt.message and not known else []
    return Finding(
        f"Attempt {attempt.number} ended{at}{where}.",
        str(reason or ""),
        f"{cause}{saved}{repeats} {charged}",
        [*message, *(attempt.decision or []), *filter(None, [restart])],
        remedy(reason) if reason and not known else "",
        bad=attempt.outcome == Outcome.FAILED,
    )


_CHARGED = {
    Outcome.FAILED: "It counts as a failure (spec.recovery.maxFailures).",
    Outcome.DISRUPTED: "It counts as a disruption, not as a failure.",
}
