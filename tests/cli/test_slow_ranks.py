"""`distill why` of a job whose steps are slow: from the metrics that the trainer's own ranks serve."""

import pytest

from distill_cli.views.job.finding import Finding
from distill_cli.views.job.ranks import RankTime, rank_time, slow_ranks
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from tests.support.cli.stored import stored

STEPS, SECONDS = 200, 1.0


def rank(number: int, **phases: float) -> RankTime:
    """A rank after steps of a second, with these seconds by phase in each; backward is what is left."""
    metrics = TrainerMetrics(rank=number, world_size=4, checkpoint_interval=60, versions={"torch": "2"})
    for step in range(STEPS):
        metrics.step(images=4, seconds=SECONDS, step=step, epoch=0)
        for phase, seconds in {"teacher": 0.2, "forward": 0.2, **phases}.items():
            metrics.phase(phase, seconds)
    found = rank_time(number, f"tiny-a1-{number}", f"node{number}", metrics.exposition().decode())
    assert found is not None
    return found


def findings(*ranks: RankTime) -> list[Finding]:
    return list(slow_ranks(stored("running"), ranks))


def test_ranks_that_work_alike_are_no_finding() -> None:
    assert findings(rank(0, data=0.05), rank(1, data=0.1), rank(2, data=0.05)) == []
    assert findings(rank(0)) == []
    assert findings() == []


def test_ranks_that_wait_for_data_are_told_what_to_raise() -> None:
    (found,) = findings(rank(0, data=0.3), rank(1, data=0.36))
    assert found.title == "The ranks wait for data."
    assert found.evidence[0] == "waiting for data: 33% of the steps of 2 ranks; 36% on the one that waited most"
    assert "spec.training.workers" in found.todo
    assert "spec.resources.requests.cpu" in found.todo
    assert "spec.dataCache" in found.todo


def test_a_single_rank_that_waits_for_data_is_found() -> None:
    (found,) = findings(rank(0, data=0.5))
    assert found.evidence[0] == "waiting for data: 50% of the steps of 1 rank"


@pytest.mark.parametrize(("phase", "does"), [("data", "waiting for data"), ("forward", "the forward pass")])
def test_a_straggler_is_named_with_its_node_and_its_work(phase: str, does: str) -> None:
    usual = rank(0).phases.get(phase, 0.0) / STEPS
    (found,) = findings(rank(0), rank(1), rank(2, **{phase: usual + 0.25}), rank(3))
    assert found.title == "Rank 2 on node2 is slower than the others."
    assert found.says == f"In each step the others wait 0.25 s for it, 25% of the time, most of it for {does}."
    assert found.evidence == ["own work in a step: 0.65 s on rank 2 (pod tiny-a1-2), 0.4 s on most others"]
    assert "distill restart" in found.todo


def test_the_first_steps_say_nothing_yet() -> None:
    early = TrainerMetrics(rank=0, world_size=1, checkpoint_interval=60, versions={})
    assert rank_time(0, "pod", "node", early.exposition().decode()) is None
    early.step(images=4, seconds=30.0, step=1, epoch=0)
    early.phase("data", 25.0)
    first = rank_time(0, "pod", "node", early.exposition().decode())
    assert first is not None
    assert findings(first) == []
