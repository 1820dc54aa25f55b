"""The trainer's metrics: what happened, under the contract's names."""

import re
from datetime import UTC, datetime
from itertools import pairwise

from distill_api.metrics import TrainerMetric
from distill_trainer.process.telemetry.metrics import TrainerMetrics


def metrics_of(rank: int) -> TrainerMetrics:
    return TrainerMetrics(rank=rank, world_size=2, checkpoint_interval=60, versions={"torch": "2"})


def exposed(metrics: TrainerMetrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_say_what_happened_under_the_contracts_names() -> None:
    metrics = metrics_of(0)
    metrics.planned(steps=40)
    metrics.resumed(10)
    metrics.execution(3)
    metrics.step(images=8, seconds=0.5, step=11, epoch=1)
    metrics.phase("data", 0.25)
    metrics.losses({"box": 1.5, "dis": 2.5})
    metrics.learning_rates({"pg0": 0.1})
    metrics.evaluated("student", map50=0.5, map50_95=0.25)
    metrics.skipped("non-finite")
    metrics.checkpoint_committed(10, datetime.fromtimestamp(50, UTC), 0.1)
    metrics.checkpoint_failed()
    metrics.checkpoint_fell_back()
    metrics.checkpoint_stalled(0.02)
    metrics.grad_norm(3.0)
    metrics.neck_gradients([0.5], [-0.1])
    metrics.amp_scale(1024.0)
    metrics.gpu_memory(7)

    values = exposed(metrics)
    expected = {
        TrainerMetric.IMAGES: 8,
        TrainerMetric.STEPS: 1,
        TrainerMetric.STEP: 11,
        TrainerMetric.EPOCH: 1,
        TrainerMetric.STEPS_PLANNED: 40,
        TrainerMetric.PROGRESS_RATIO: 11 / 40,
        TrainerMetric.IMAGES_PER_SECOND: 2 * 8 / 0.5,
        TrainerMetric.WORLD_SIZE: 2,
        TrainerMetric.EXECUTION: 3,
        TrainerMetric.RESUMED_FROM_STEP: 10,
        TrainerMetric.LAST_CHECKPOINT_STEP: 10,
        TrainerMetric.LAST_CHECKPOINT_TIME: 50,
        TrainerMetric.CHECKPOINT_FALLBACKS: 1,
        TrainerMetric.CHECKPOINT_INTERVAL: 60,
        TrainerMetric.GRAD_NORM: 3,
        TrainerMetric.AMP_SCALE: 1024,
        f'{TrainerMetric.NECK_GRADIENT_RATIO}{{level="0"}}': 0.5,
        f'{TrainerMetric.NECK_GRADIENT_COSINE}{{level="0"}}': -0.1,
        TrainerMetric.GPU_MEMORY: 7,
        f'{TrainerMetric.TIME}{{phase="data"}}': 0.25,
        f'{TrainerMetric.LOSS}{{component="dis"}}': 2.5,
        f'{TrainerMetric.LEARNING_RATE}{{group="pg0"}}': 0.1,
        f'{TrainerMetric.EVAL_MAP}{{iou="50-95",model="student"}}': 0.25,
        f'{TrainerMetric.SKIPPED_STEPS}{{reason="non-finite"}}': 1,
        f'{TrainerMetric.CHECKPOINT_SAVES}{{result="committed"}}': 1,
        f'{TrainerMetric.CHECKPOINT_SAVES}{{result="failed"}}': 1,
        f"{TrainerMetric.STEP_DURATION}_count": 1,
        f"{TrainerMetric.CHECKPOINT_STALL}_count": 1,
        f"{TrainerMetric.CHECKPOINT_PERSIST}_count": 1,
    }
    assert {name: values[name] for name in expected} == expected


def test_every_metric_name_of_the_contract_is_exposed_by_rank_0() -> None:
    text = metrics_of(0).exposition().decode()
    names = [value for key, value in vars(TrainerMetric).items() if not key.startswith("_")]
    assert [name for name in names if not re.search(rf"^# TYPE {name} ", text, re.MULTILINE)] == []


def test_what_is_true_of_the_job_is_told_by_rank_0_alone() -> None:
    other = metrics_of(1)
    other.planned(steps=40)
    other.step(images=8, seconds=0.5, step=11, epoch=1)
    other.evaluated("student", map50=0.5, map50_95=0.25)
    names = {name.partition("{")[0] for name in exposed(other)}

    assert TrainerMetric.IMAGES in names
    assert not names & {TrainerMetric.IMAGES_PER_SECOND, TrainerMetric.EVAL_MAP, TrainerMetric.STEPS_PLANNED}


def test_a_resumed_attempt_knows_its_last_checkpoint() -> None:
    metrics = metrics_of(0)
    metrics.resumed(10, datetime.fromtimestamp(50, UTC))
    values = exposed(metrics)
    assert (values[TrainerMetric.LAST_CHECKPOINT_STEP], values[TrainerMetric.LAST_CHECKPOINT_TIME]) == (10, 50)


def test_a_quantile_is_at_most_two_and_a_half_times_too_large() -> None:
    """Prometheus finds a quantile only within a bucket."""
    found: dict[str, list[float]] = {}
    for family in metrics_of(0).registry.collect():
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                found.setdefault(family.name, []).append(float(sample.labels["le"]))
    assert len(found) >= 3
    for name, bounds in found.items():
        widest = max(after / before for before, after in pairwise(sorted(bounds)[:-1]))
        assert widest <= 2.5, name
