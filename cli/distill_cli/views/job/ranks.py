"""Whether the ranks wait for data, or for one rank that is slower than the others: from the ranks' own metrics."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from distill_api.metrics import TrainerMetric
from distill_cli.views import text
from distill_cli.views.job.finding import Finding
from distill_client import Job

LONG_ENOUGH: Final = 60.0
"""Seconds of steps after which they say something: the first ones start workers and compile."""
MUCH_WAITING: Final = 0.2
"""Share of the steps' time in data from which on the data is too slow."""
MUCH_SLOWER: Final = 0.1
"""Share of a step that a rank takes longer than the others for its own work, from which on it holds them up."""
OWN_WORK: Final = ("data", "teacher", "forward")
"""Phases that no rank shares with the others, which wait for the slowest in backward."""
_DOES: Final = {"data": "waiting for data", "teacher": "the teacher", "forward": "the forward pass"}
_SAMPLE = re.compile(r'^(\w+)(?:\{phase="(\w+)"\})? ([-+.\w]+)$', re.MULTILINE)


@dataclass(frozen=True)
class RankTime:
    """Where the time of a rank's steps went in this attempt, in seconds."""

    rank: int
    pod: str
    node: str
    steps: float
    seconds: float
    """Of all steps."""
    phases: Mapping[str, float]

    @property
    def own(self) -> float:
        """Its own work in each step."""
        return sum(self.phases.get(phase, 0.0) for phase in OWN_WORK) / self.steps


def rank_time(rank: int, pod: str, node: str, exposition: str) -> RankTime | None:
    """From what the rank serves at /metrics; None before its first step."""
    samples = {(name, phase): value for name, phase, value in _SAMPLE.findall(exposition)}
    steps, seconds = (
        float(samples.get((f"{TrainerMetric.STEP_DURATION}_{part}", ""), 0.0)) for part in ("count", "sum")
    )
    phases = {phase: float(value) for (name, phase), value in samples.items() if name == TrainerMetric.TIME}
    return RankTime(rank, pod, node, steps, seconds, phases) if steps and seconds else None


def slow_ranks(job: Job, ranks: Sequence[RankTime]) -> Iterator[Finding]:
    """What holds up the steps of this attempt, if anything does."""
    told = [rank for rank in ranks if rank.seconds >= LONG_ENOUGH]
    slowest = _straggler(told)
    if slowest is not None:
        yield _held_up(job, slowest, [rank for rank in told if rank is not slowest])
    rest = [rank for rank in told if rank is not slowest]
    shares = [rank.phases.get("data", 0.0) / rank.seconds for rank in rest]
    if shares and (share := sum(shares) / len(shares)) >= MUCH_WAITING:
        yield _waiting(job, share, max(shares), len(rest))


def _straggler(ranks: Sequence[RankTime]) -> RankTime | None:
    """The rank whose own work takes much longer than that of the others."""
    if len(ranks) < 2:
        return None
    slowest = max(ranks, key=lambda rank: rank.own)
    others = median(rank.own for rank in ranks if rank is not slowest)
    return slowest if slowest.own - others >= MUCH_SLOWER * slowest.seconds / slowest.steps else None


def _held_up(job: Job, slowest: RankTime, others: Sequence[RankTime]) -> Finding:
    def usual(phase: str) -> float:
        return median(rank.phases.get(phase, 0.0) / rank.steps for rank in others)

    lost = slowest.own - median(rank.own for rank in others)
    most = max(OWN_WORK, key=lambda phase: slowest.phases.get(phase, 0.0) / slowest.steps - usual(phase))
    data = "its volume or its CPUs are slower there" if most == "data" else "a slower or shared GPU, heat, other pods"
    where = f" on {slowest.node}" if slowest.node else ""
    return Finding(
        f"Rank {slowest.rank}{where} is slower than the others.",
        "",
        f"In each step the others wait {lost:.2g} s for it, {text.percent(lost * slowest.steps / slowest.seconds)} of"
        f" the time, most of it for {_DOES[most]}.",
        [
            f"own work in a step: {slowest.own:.2g} s on rank {slowest.rank} (pod {slowest.pod}),"
            f" {median(rank.own for rank in others):.2g} s on {'the other' if len(others) == 1 else 'most others'}",
        ],
        f"Compare its node with the others: {data}. distill logs {job.name} --rank {slowest.rank} is its log; if the"
        f" node stays slow, cordon it, and distill restart {job.name} moves the ranks without losing a step.",
    )


def _waiting(job: Job, share: float, largest: float, ranks: int) -> Finding:
    workers, cache = job.spec.training.workers, job.spec.data_cache
    most = f"; {text.percent(largest)} on the one that waited most" if ranks > 1 else ""
    more = "" if cache is not None else ", and spec.dataCache keeps the images on the nodes"
    return Finding(
        "The ranks wait for data.",
        "",
        f"They spent {text.percent(share)} of the steps' time in waiting for images.",
        [f"waiting for data: {text.percent(share)} of the steps of {text.plural(ranks, 'rank')}{most}",
         f"each rank has {text.plural(workers, 'worker')} (spec.training.workers)"],
        "Workers that have no CPUs to run on help nothing: raise spec.training.workers together with"
        f" spec.resources.requests.cpu{more}. All of them may change while the job is suspended.",
    )  # fmt: skip
