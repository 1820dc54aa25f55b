"""When a gang counts as stalled: by what rank 0 says, or by a silence that its kubelet confirms."""

from dataclasses import replace
from typing import Any

import pytest

from distill_api.pod.report import TrainerStatus
from distill_api.reasons import Reason
from distill_operator.plan.plan import make_plan
from distill_operator.policies.recovery import stall
from distill_operator.types.observed import PodFacts, Silence
from tests.support.operator.samples import (
    SETTINGS,
    answer,
    at,
    attempt,
    child,
    ended,
    job,
    observed,
    pod,
    status,
)

TRAINING = attempt(running_at=at(1), stepped_at=at(5), step=5)
LONG = Silence(misses=50, seconds=900.0, why="timed out")
READY = {"ready": True}


def idle(seconds: float) -> TrainerStatus:
    return answer(30).model_copy(update={"idle_seconds": seconds})


def stalls(*pods: PodFacts, **seen: Any) -> bool:
    return stall.stalled(TRAINING, observed(job(status(TRAINING)), *pods, **seen), 600, at(9000)) is not None


@pytest.mark.parametrize(
    ("pods", "seconds", "expected"),
    [
        ((pod(0), pod(1)), 599, False),
        ((pod(0), pod(1)), 600, True),
        ((pod(0, **READY), pod(1, **READY)), 600, True),
        ((pod(0), pod(1, **ended(5, 0))), 600, True),
        ((pod(0, **ended(5, 0)), pod(1, **ended(5, 0))), 600, False),
        ((pod(0), pod(1, **ended(5, 1))), 600, False),
        ((pod(0), pod(1, phase="Pending", scheduled_at=None)), 600, False),
        ((pod(0),), 600, False),
    ],
)
def test_a_rank_0_that_says_it_has_not_moved_has_stalled(
    pods: tuple[PodFacts, ...], seconds: float, expected: bool
) -> None:
    assert stalls(*pods, trainer=idle(seconds)) is expected


@pytest.mark.parametrize(
    ("silence", "rank0", "expected"),
    [
        (LONG, {}, True),
        (LONG, READY, False),
        (replace(LONG, seconds=599.0), {}, False),
        (replace(LONG, misses=2), {}, False),
        (replace(LONG, widespread=True), {}, False),
        (None, {}, False),
    ],
)
def test_a_silence_counts_if_it_is_long_and_the_kubelet_confirms_it(
    silence: Silence | None, rank0: dict[str, Any], expected: bool
) -> None:
    assert stalls(pod(0, **rank0), pod(1), silence=silence) is expected


def test_an_operator_that_was_away_ends_nothing_at_its_first_missed_poll() -> None:
    """Hours after the last step that it saw: the pods run, and rank 0 has just not answered."""
    running = job(status(attempt(running_at=at(1), stepped_at=at(5), step=5)))
    first = Silence(misses=1, seconds=0.0, why="timed out")
    for silence in (None, first):
        plan = make_plan(observed(running, pod(0), pod(1), jobs=(child(),), silence=silence), at(9999), SETTINGS)
        assert plan.status is None or plan.status.attempts[0].reason is None
        assert not plan.actions


def test_a_healthy_rank_0_that_cannot_be_reached_goes_on_and_is_told() -> None:
    running = job(status(TRAINING))
    pods = (pod(0, **READY), pod(1, **READY))
    for widespread, word in ((False, "no NetworkPolicy blocks the operator"), (True, "check the operator's network")):
        silence = replace(LONG, widespread=widespread)
        plan = make_plan(observed(running, *pods, jobs=(child(),), silence=silence), at(9999), SETTINGS)
        assert plan.status is not None
        assert (plan.status.failures, plan.status.attempts[0].reason) == (0, None)
        (told,) = [condition for condition in plan.status.conditions if condition.type == "Running"]
        assert (told.status, told.reason) == ("True", Reason.TRAINING)
        assert word in told.message


def test_the_text_of_a_silence_does_not_change_with_time() -> None:
    """Otherwise each pass would write the status."""
    said = {
        stall.unanswered(TRAINING, observed(job(), silence=replace(LONG, misses=n, seconds=n * 15.0)))
        for n in (3, 4, 50)
    }
    assert len(said) == 1
    assert stall.unanswered(TRAINING, observed(job(), silence=replace(LONG, misses=2))) is None


def test_ranks_that_outlive_a_rank_zero_without_a_record_have_stalled() -> None:
    """Its container ran something else than the trainer, so the others wait for it."""
    waiting = job(status(attempt()))
    gang = (pod(0, **ended(100, 0)), pod(1))
    for seconds, reason in ((699, None), (700, Reason.STALLED)):
        after = make_plan(observed(waiting, *gang, jobs=(child(),)), at(seconds), SETTINGS).status
        assert (after.attempts[0].reason if after is not None else None) == reason
    assert after is not None
    assert "tiny-a1-0 (rank 0) ended 600 s ago without a completion record" in (after.attempts[0].message or "")
