"""What `make chaos-cluster` makes of what it sees: a status that does not tell the truth is an error."""

import random
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest

from benchmarks.chaos.cluster.checks import PHASES, Disruption, complaints, complete
from benchmarks.chaos.cluster.disruptions import KINDS, schedule
from benchmarks.chaos.cluster.picture import bands
from benchmarks.chaos.cluster.watching import Pod, Sample, Seen

INTERVAL = 3.0


def lived(attempt: int, began: float, start: int, reason: str | None, seen: Seen) -> None:
    """An attempt of two pods that makes a step a second for ten seconds, and commits the last one."""
    seen.created[attempt] = began
    for rank in range(2):
        times = {"placed": began + 1, "started": began + 2, "ended": began + 20}
        seen.pods[f"{attempt}/{rank}"] = Pod(f"p{rank}", f"{attempt}/{rank}", attempt, rank, **times)
    seen.answered[attempt], seen.stepped[attempt] = began + 5, began + 8
    for second in range(11):
        at, step = began + 7 + second, start + second
        seen.samples.append(Sample(at, attempt, "training", step, second, step, start, {}))
    seen.attempts[attempt] = {"number": attempt, "reason": reason, "resumedFromStep": start, "message": "why"}


def story(kind: str, **told: Any) -> tuple[Seen, list[Disruption]]:
    """A job that is disturbed once; `told` is what its second attempt's status says instead of the truth."""
    seen = Seen()
    lived(1, 0.0, 0, str(min(KINDS[kind].causes)), seen)
    lived(2, 22.0, 10, "Completed", seen)
    seen.attempts[2] |= {"lostSteps": 0} | told
    budgets = {budget: int(KINDS[kind].charged == budget) for budget in ("preemptions", "failures")}
    goodput = {"productiveSeconds": 20.0, "restartSeconds": 20.0}
    times = {"startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:40Z"}
    seen.job = {"status": {**budgets, **times, "goodput": goodput}}
    made = Disruption(1, kind, 1, 17.5, 10, sorted(KINDS[kind].causes))
    complete(made, seen)
    return seen, [made]


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.ends], ids=lambda kind: kind.name)
def test_a_status_that_tells_what_was_done_is_believed(kind: Any) -> None:
    seen, made = story(kind.name)
    assert complaints(made, seen, INTERVAL) == []
    assert list(made[0].phases) == list(PHASES)
    assert made[0].recovery_seconds == sum(made[0].phases.values()) == 12.5


def test_whatever_differs_is_an_error() -> None:
    seen, made = story("preemption", resumedFromStep=8, lostSteps=2)
    assert any("2 steps were lost, at most 0 may be" in text for text in complaints(made, seen, INTERVAL))
    seen, made = story("SIGKILL pod", resumedFromStep=8, lostSteps=2)
    assert complaints(made, seen, INTERVAL) == []
    seen, made = story("SIGKILL pod", resumedFromStep=1, lostSteps=9)
    assert any("9 steps were lost" in text for text in complaints(made, seen, INTERVAL))
    seen, made = story("SIGKILL pod", resumedFromStep=6, lostSteps=0)
    assert any("lostSteps is 0, but 4 were seen" in text for text in complaints(made, seen, INTERVAL))

    seen, made = story("eviction")
    seen.job["status"] |= {"preemptions": 0, "failures": 1}
    assert len(complaints(made, seen, INTERVAL)) == 2
    seen, made = story("eviction")
    made[0].cause = seen.attempts[1]["reason"] = "TrainerError"
    assert len(complaints(made, seen, INTERVAL)) == 2
    seen, made = story("eviction")
    seen.attempts[3] = {"number": 3, "reason": None}
    assert complaints(made, seen, INTERVAL)
    seen, made = story("eviction")
    seen.job["status"]["goodput"]["restartSeconds"] = 25.0
    assert any("goodput" in text for text in complaints(made, seen, INTERVAL))


def test_a_schedule_has_every_kind_as_often_as_the_others_and_depends_on_the_seed_alone() -> None:
    drawn = schedule(20, random.Random(3))
    assert drawn == schedule(20, random.Random(3)) != schedule(20, random.Random(4))
    assert set(Counter(kind.name for kind in drawn).values()) == {2, 3}
    assert len(Counter(drawn)) == len(KINDS)


def test_the_bands_of_the_picture_leave_no_second_out() -> None:
    seen, _ = story("SIGKILL pod", resumedFromStep=8, lostSteps=2)
    found = bands(seen, 0.0, 40.0)
    assert (found[0].since, found[-1].until) == (0.0, 40.0)
    assert all(first.until == then.since for first, then in pairwise(found))
    kinds = [band.kind for band in found]
    assert kinds[:5] == ["waiting for capacity", "restart", "productive", "lost work", "restart"]
