"""Measures the recovery from each disruption, and checks the job's status against the disruptions."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from benchmarks.chaos.cluster.disruptions import KINDS
from benchmarks.chaos.cluster.watching import Sample, Seen

PHASES = ("gang gone", "next Job", "pods placed", "pods run", "rank 0 serves", "first step")
"""The phases of a recovery, in order: `next Job` includes the backoff, `pods placed` the wait for capacity, and
`rank 0 serves` the start of launcher and ranks with their imports."""
SLACK_SECONDS = 1.5
"""How much later than its interval a commit may be, and how much older the operator's last step than the follower's."""
ACCOUNT_TOLERANCE = 0.01


@dataclass
class Disruption:
    """One disruption and its result."""

    number: int
    kind: str
    attempt: int
    """The attempt that was disrupted."""
    at: float
    """time.time() at its start."""
    step: int
    """Rank 0's last step before it."""
    causes: list[str]
    """Reasons allowed in the status for the end of that attempt; empty if the attempt must not end."""
    notes: list[str] = field(default_factory=list)
    acted_seconds: float = 0.0
    cause: str | None = None
    """Reason in the status."""
    lost_steps: int | None = None
    """Lost steps in the status."""
    seen_lost_steps: int | None = None
    """Lost steps according to rank 0's responses."""
    phases: dict[str, float] = field(default_factory=dict)
    recovery_seconds: float | None = None
    """Time until the first new step; for a killed operator, until it was ready again."""


def complete(disruption: Disruption, seen: Seen) -> None:
    """Fill in the observed recovery."""
    if not disruption.causes:
        return
    old, new = disruption.attempt, disruption.attempt + 1
    disruption.cause = seen.attempts.get(old, {}).get("reason")
    disruption.lost_steps = seen.attempts.get(new, {}).get("lostSteps")
    resumed = seen.attempts.get(new, {}).get("resumedFromStep")
    last = answers(seen, old)[-1:]
    if last and resumed is not None:
        disruption.seen_lost_steps = max(0, last[0].step - resumed)
    marks = [
        max((pod.ended for pod in seen.gang(old) if pod.ended), default=None),
        seen.created.get(new),
        max((pod.placed for pod in seen.gang(new) if pod.placed), default=None),
        max((pod.started for pod in seen.gang(new) if pod.started), default=None),
        seen.answered.get(new),
        seen.stepped.get(new),
    ]
    before = disruption.at
    for name, mark in zip(PHASES, marks, strict=True):
        if mark is None:
            return
        disruption.phases[name] = round(max(0.0, mark - before), 2)
        before = max(before, mark)
    disruption.recovery_seconds = round(before - disruption.at, 2)


def answers(seen: Seen, attempt: int) -> list[Sample]:
    """Rank 0's responses in an attempt, oldest first."""
    return [sample for sample in seen.samples if sample.attempt == attempt]


def steps_in_the_last(seconds: float, samples: list[Sample]) -> int:
    """Steps made in the last `seconds` before the last of an attempt's responses."""
    if not samples:
        return 0
    end = samples[-1]
    earlier = [sample.step for sample in samples if sample.at <= end.at - seconds]
    return end.step - (earlier[-1] if earlier else (end.resumed_from or 0))


def complaints(disruptions: list[Disruption], seen: Seen, interval_seconds: float) -> list[str]:
    """Differences between the status and the disruptions; empty if there are none."""
    status = seen.job["status"]
    ending = [made for made in disruptions if made.causes]
    wrong = [text for made in ending for text in _wrong(made, seen, interval_seconds)]
    wrong += [
        f"status.{budget} is {status[budget]}, but {count} disruptions are charged to it"
        for budget in ("preemptions", "failures")
        if status[budget] != (count := sum(KINDS[made.kind].charged == budget for made in ending))
    ]
    if sorted(seen.attempts) != list(range(1, len(ending) + 2)):
        wrong.append(f"attempts are {sorted(seen.attempts)}, but {len(ending)} disruptions end an attempt")
    by_cause = Counter(attempt.get("reason") for attempt in seen.attempts.values())
    expected = Counter(made.cause if made.cause in made.causes else made.causes[0] for made in ending)
    if by_cause != expected | Counter(["Completed"]):
        wrong.append(f"attempts by cause are {dict(by_cause)}, but the disruptions were {dict(expected)}")
    return wrong + _account(status)


def _wrong(made: Disruption, seen: Seen, interval_seconds: float) -> list[str]:
    where = f"disruption {made.number} ({made.kind}, attempt {made.attempt})"
    wrong = []
    if made.cause not in made.causes:
        message = seen.attempts.get(made.attempt, {}).get("message")
        wrong.append(f"{where}: the status says {made.cause} ({message}) instead of {' or '.join(made.causes)}")
    if made.lost_steps is None or made.seen_lost_steps is None:
        return [*wrong, f"{where}: the status has no lostSteps"]
    samples = answers(seen, made.attempt)
    tolerance = 1 + steps_in_the_last(SLACK_SECONDS, samples)
    if abs(made.lost_steps - made.seen_lost_steps) > tolerance:
        wrong.append(f"{where}: lostSteps is {made.lost_steps}, but {made.seen_lost_steps} steps were lost")
    at_most = 0 if KINDS[made.kind].grace else 1 + steps_in_the_last(interval_seconds + SLACK_SECONDS, samples)
    if max(made.lost_steps, made.seen_lost_steps) > at_most:
        wrong.append(f"{where}: {made.seen_lost_steps} steps were lost, but at most {at_most} are allowed")
    return wrong


def _account(status: dict[str, Any]) -> list[str]:
    wall = (_time(status["finishedAt"]) - _time(status["startedAt"])).total_seconds()
    accounted = sum(value for kind, value in status["goodput"].items() if kind.endswith("Seconds"))
    if abs(accounted - wall) <= ACCOUNT_TOLERANCE * wall:
        return []
    return [f"status.goodput accounts for {accounted:.1f} s, but the job took {wall:.1f} s"]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
