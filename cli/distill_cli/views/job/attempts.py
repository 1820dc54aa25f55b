"""Attempts, goodput and what they cost in accelerator time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from distill_api.constants import Outcome
from distill_api.status import Attempt, Spent
from distill_cli.views import text
from distill_client import ClientError, Job

PARTS = {
    "productive_seconds": "training",
    "validation_seconds": "validation",
    "checkpoint_stall_seconds": "checkpoint stall",
    "lost_work_seconds": "lost work",
    "restart_seconds": "restarts",
    "waiting_for_capacity_seconds": "waiting for nodes",
}
"""Fields of goodput, in the order of the bars, by the words for people."""
STARTS, FINISHING = "first start", "finishing"
"""Causes that are no reasons."""


def shares(spent: Spent) -> dict[str, float]:
    """Seconds by word, without those that are zero."""
    found = {word: float(getattr(spent, field)) for field, word in PARTS.items()}
    return {word: seconds for word, seconds in found.items() if seconds > 0}


@dataclass(frozen=True)
class Cost:
    """Accelerator-hours of a job; node-hours of one that trains on CPUs."""

    namespace: str
    name: str
    unit: str
    useful: float
    """Steps whose work was kept, and validation."""
    stalled: float
    """Paused for checkpoints."""
    lost: dict[str, float]
    """Work that was repeated, and restarts, by the reason that caused them, the largest first."""
    waiting: float
    """While not all pods had a node. Those that had one held it, so the real cost is between 0 and this."""
    earlier: float
    """Of attempts that the status does not list any more; part of no other sum."""

    @property
    def total(self) -> float:
        """All of it, without the time that was waited for nodes."""
        return self.useful + self.stalled + sum(self.lost.values()) + self.earlier

    @property
    def useful_share(self) -> float | None:
        """Share of the total that was useful; None before the first second."""
        return self.useful / self.total if self.total else None


def cost(job: Job) -> Cost:
    """What the job cost so far, from the account that the operator keeps.

    A restart is charged to the reason that ended the attempt before it; the first one is `first start`.
    """
    per_node = job.spec.accelerators.per_node if job.spec.uses_cuda else 0
    unit, weight = ("GPU-hours", per_node) if per_node else ("node-hours", 1)
    useful = stalled = waiting = listed = 0.0
    lost: dict[str, float] = {}
    cause = STARTS if not job.status.attempts or job.status.attempts[0].number == 1 else "earlier restarts"
    for attempt in job.status.attempts:
        spent = attempt.spent or Spent()
        hours = attempt.nodes * weight / 3600
        useful += hours * (spent.productive_seconds + spent.validation_seconds)
        stalled += hours * spent.checkpoint_stall_seconds
        waiting += hours * spent.waiting_for_capacity_seconds
        start = min(spent.restart_seconds, _start_seconds(attempt))
        lost[cause] = lost.get(cause, 0.0) + hours * start
        if attempt.reason is not None:
            cause = FINISHING if attempt.outcome == Outcome.SUCCEEDED else str(attempt.reason)
        lost[cause] = lost.get(cause, 0.0) + hours * (spent.lost_work_seconds + spent.restart_seconds - start)
        listed += _held(spent)
    whole = _held(job.status.goodput) if job.status.goodput else listed
    earlier = max(0.0, whole - listed) * job.spec.nodes * weight / 3600
    ordered = dict(sorted(((r, h) for r, h in lost.items() if h > 1e-9), key=lambda item: -item[1]))
    return Cost(
        job.namespace, job.name, unit, useful, stalled, ordered, waiting, earlier if earlier > 1e-3 else 0.0
    )  # fmt: skip


def costs_of(jobs: Sequence[Job]) -> tuple[list[Cost], list[str]]:
    """The costs of the jobs that this version can read, and what is wrong with the others."""
    costs, problems = [], []
    for job in jobs:
        try:
            costs.append(cost(job))
        except ClientError as error:
            problems.append(error.message)
    return costs, problems


def _held(spent: Spent) -> float:
    return sum(shares(spent).values()) - spent.waiting_for_capacity_seconds


def _start_seconds(attempt: Attempt) -> float:
    """From the last pod's node to the first step, as far as the attempt came."""
    begin = attempt.scheduled_at or attempt.started_at
    until = attempt.running_at or attempt.ended_at
    if attempt.running_at is None and attempt.outcome != Outcome.RUNNING:
        return 0.0  # it never trained: all of it is charged to its own end
    return max(0.0, (until - begin).total_seconds()) if until else float("inf")


def restarts(job: Job) -> dict[int, str]:
    """By the number of an attempt that ended: how long it took until the next one trained, and what took it."""
    listed = {attempt.number: attempt for attempt in job.status.attempts}
    found = {}
    for ended, then in ((listed[n], listed[n + 1]) for n in listed if n + 1 in listed):
        if ended.ended_at is None or then.running_at is None:
            continue
        scheduled = then.scheduled_at or then.started_at
        parts = (
            ("until the next attempt", then.started_at - ended.ended_at),
            ("waiting for nodes", scheduled - then.started_at),
            ("starting", then.running_at - scheduled),
        )
        told = ", ".join(f"{text.duration(part.total_seconds())} {what}" for what, part in parts)
        whole = text.duration((then.running_at - ended.ended_at).total_seconds())
        found[ended.number] = f"{whole} until attempt {then.number} trained: {told}"
    return found


@dataclass(frozen=True)
class AttemptRow:
    """One attempt in the status screen."""

    number: int
    nodes: int
    started: datetime
    seconds: float
    outcome: str
    reason: str
    message: str
    steps: str
    """From which step to which one."""
    lost_steps: int
    """Steps that the next attempt had to repeat."""


def repeated_steps(job: Job) -> dict[int, int]:
    """By the number of an attempt: steps that the next one had to repeat."""
    return {later.number - 1: later.lost_steps or 0 for later in job.status.attempts}


def attempt_rows(job: Job, now: datetime) -> list[AttemptRow]:
    """The attempts that the status lists, newest first."""
    listed, repeated = job.status.attempts, repeated_steps(job)
    rows = []
    for attempt in reversed(listed):
        until = attempt.ended_at or (job.status.finished_at or now)
        steps = f"{attempt.resumed_from_step or 0:,} → {attempt.step:,}" if attempt.step is not None else ""
        rows.append(
            AttemptRow(
                number=attempt.number,
                nodes=attempt.nodes,
                started=attempt.started_at,
                seconds=max(0.0, (until - attempt.started_at).total_seconds()),
                outcome=str(attempt.outcome),
                reason=str(attempt.reason or ""),
                message=attempt.message or "",
                steps=steps,
                lost_steps=repeated.get(attempt.number, 0),
            )
        )
    return rows
