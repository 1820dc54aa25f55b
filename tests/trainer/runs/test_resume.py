"""A resumed run is the uninterrupted one: bitwise with as many ranks, sample for sample with fewer or more."""

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from digits import generate
from distill_trainer.checkpoint.reading import load_newest
from distill_trainer.models.arguments import ultralytics_arguments
from distill_trainer.models.student import build_student, student_source
from distill_trainer.models.weights import save_weights
from tests.support.ranks.replay import Scenario, record_of, replay
from tests.support.models import dataset, job_spec, teach

WORLDS = (1, 2, 4)
STEPS = 6
SPEC: dict[str, Any] = {
    "student": {"model": "yolo26n.yaml"},
    "teacher": {"model": "teacher.pt", "precision": "fp32"},
    "dataset": {"config": "digits.yaml"},
    "accelerators": {"perNode": 0, "processesPerNode": 4},
    "training": {
        "epochs": 2,
        "batch": 8,
        "nbs": 16,
        "imgsz": 64,
        "optimizer": "SGD",
        "warmup_epochs": 1.0,
        "close_mosaic": 1,
        "mixup": 0.3,
        "workers": 0,
        "plots": False,
    },
}
"""Four shards of two images, three steps an epoch. The optimizer moves after steps 1, 2, 4 and 6: the first epoch ends
with gradients half accumulated. It warms up; the second one has no mosaic.
"""
MOMENTS = {
    "in the warm-up": (1, {"stop_at": 1}, 1),
    "in the validation between mosaic and none, half accumulated": (2, {"stop_at": 3, "stop_in_validation": True}, 2),
    "in mid-accumulation, in mid-epoch": (3, {"stop_at": 3}, 4),
}
"""By name: the attempt that is stopped, how, and the step from which the next one goes on."""
ELASTIC = {1: (4, 1), 2: (2, 2), 3: (3, 4), 4: (4, None)}
"""By attempt: ranks, and where it is stopped."""


def scenarios() -> Iterator[Scenario]:
    for world in WORLDS:
        yield Scenario(f"calm-{world}", world, spec=SPEC)
        for attempt, how, _ in MOMENTS.values():
            yield Scenario(f"stopped-{world}", world, attempt=attempt, spec=SPEC, **how)
        yield Scenario(f"stopped-{world}", world, attempt=len(MOMENTS) + 1, spec=SPEC)
    yield Scenario("killed-4", 4, begins_as=("calm-4", 2), spec=SPEC)
    yield Scenario("late-2", 2, stop_at=2, late=True, spec=SPEC)
    yield Scenario("late-2", 2, attempt=2, late=True, spec=SPEC)
    bf16 = SPEC | {"teacher": SPEC["teacher"] | {"precision": "bf16"}}
    yield Scenario("bf16", 2, stop_at=1, spec=bf16)
    for attempt, (world, stop_at) in ELASTIC.items():
        yield Scenario("elastic", world, attempt=attempt, stop_at=stop_at, spec=SPEC)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes on which all scenarios were run."""
    root = tmp_path_factory.mktemp("replay")
    generate.generate(root / "data", "detect", {"train": 24, "val": 4}, imgsz=64, seed=0)
    names = yaml.safe_load((root / "data/digits.yaml").read_text())["names"]
    arguments = ultralytics_arguments(job_spec(), "detect", 64)
    classes = names if isinstance(names, dict) else dict(enumerate(names))
    teacher = build_student(student_source(None, "yolo26s.yaml"), dataset(classes), arguments, seed=1)
    save_weights(root / "models/teacher.pt", teach(teacher), train_args=vars(arguments))
    replay(root, list(scenarios()))
    return root


def tensors(root: Path, job: str, step: int) -> bytes:
    return (root / f"checkpoints/{job}/checkpoints/step-{step}/tensors.bin").read_bytes()


def rows(root: Path, job: str) -> list[dict[str, str]]:
    with (root / f"checkpoints/{job}/results.csv").open() as file:
        return [{key: value for key, value in row.items() if key != "time"} for row in csv.DictReader(file)]


def assert_equal(root: Path, job: str, calm: str) -> None:
    """Weights, averages and optimizer bit for bit, what is told of every epoch, and what is remembered of the best."""
    assert tensors(root, job, STEPS) == tensors(root, calm, STEPS)
    assert rows(root, job) == rows(root, calm)
    ours, theirs = (progress(root, name, STEPS) for name in (job, calm))
    assert ours == theirs


def progress(root: Path, job: str, step: int) -> dict[str, Any]:
    found = dict(state(root, job, step)["progress"])
    del found["seconds"]
    return found


def state(root: Path, job: str, step: int) -> dict[str, Any]:
    from distill_trainer.checkpoint.format import layout
    from distill_trainer.checkpoint.format.encoding import restore

    folder = layout.committed(root / f"checkpoints/{job}/checkpoints", step)
    return dict(restore((folder / layout.STRUCTURE).read_bytes(), bytearray((folder / layout.TENSORS).read_bytes())))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.timeout(900)
def test_a_stopped_run_goes_on_from_the_state_of_the_undisturbed_one(root: Path, world: int, moment: str) -> None:
    attempt, _, step = MOMENTS[moment]
    assert record_of(root, f"stopped-{world}", attempt + 1, 0)["resumed"] == step
    stopped, calm = (tensors(root, f"{kind}-{world}", step) for kind in ("stopped", "calm"))
    assert stopped == calm


@pytest.mark.parametrize("world", WORLDS)
def test_a_run_that_was_stopped_three_times_ends_as_if_it_had_not_been(root: Path, world: int) -> None:
    assert_equal(root, f"stopped-{world}", f"calm-{world}")


def test_every_rank_knows_the_execution_number_that_rank_0_took(root: Path) -> None:
    for attempt, (world, _) in ELASTIC.items():
        numbers = [record_of(root, "elastic", attempt, rank)["execution"] for rank in range(world)]
        assert numbers == [attempt] * world


def test_a_run_that_is_killed_after_later_results_were_told_replaces_them(root: Path) -> None:
    assert record_of(root, "killed-4", 1, 0)["resumed"] == 2
    assert_equal(root, "killed-4", "calm-4")


def test_results_read_late_change_only_when_a_stop_is_obeyed(root: Path) -> None:
    """The request travels with step 2, is read after step 3, where gradients are half accumulated, and obeyed at 4."""
    assert [record_of(root, "late-2", 1, rank)["stopped"] for rank in range(2)] == [4, 4]
    assert record_of(root, "late-2", 2, 0)["resumed"] == 4
    assert tensors(root, "late-2", 4) == tensors(root, "calm-2", 4)
    assert_equal(root, "late-2", "calm-2")


def test_the_comparison_is_one_of_runs_that_learn(root: Path) -> None:
    assert len(rows(root, "calm-1")) == 2
    assert tensors(root, "calm-1", STEPS) != tensors(root, "calm-4", STEPS)  # rounding differs, and is seen
    first, last = (state(root, "calm-4", step)["student"] for step in (1, STEPS))
    assert not torch.equal(first["model.0.conv.weight"], last["model.0.conv.weight"])


def samples(root: Path, job: str, attempts: dict[int, int]) -> dict[int, list[str]]:
    """Digests of all images of each global step, in the order of the global batch's shards or not."""
    found: dict[int, list[str]] = {}
    for attempt, world in attempts.items():
        for rank in range(world):
            record = record_of(root, job, attempt, rank)
            trained = {int(step) for step in record["losses"]}
            for step, digests in record["samples"].items():
                if int(step) in trained:
                    found.setdefault(int(step), []).extend(digests)
    return {step: sorted(digests) for step, digests in found.items()}


def test_four_two_three_and_four_ranks_see_the_same_samples_at_every_step(root: Path) -> None:
    together = samples(root, "elastic", {attempt: world for attempt, (world, _) in ELASTIC.items()})
    assert together == samples(root, "calm-4", {1: 4}) == samples(root, "calm-1", {1: 1})
    assert list(map(len, together.values())) == [8] * STEPS


def test_elastic_runs_lose_as_much_at_every_step(root: Path) -> None:
    calm = record_of(root, "calm-4", 1, 0)["losses"]
    seen: dict[str, dict[str, float]] = {}
    for attempt in ELASTIC:
        seen |= record_of(root, "elastic", attempt, 0)["losses"]
    assert seen.keys() == calm.keys()
    for step, losses in calm.items():  # rounding grows from step to step; a mistake is there at once
        assert seen[step] == pytest.approx(losses, rel=1e-4 if int(step) < 2 else 3e-2), f"step {step}"


@pytest.mark.parametrize("job", ["calm-1", "calm-2", "elastic"])
def test_running_statistics_do_not_depend_on_the_number_of_ranks(root: Path, job: str) -> None:
    for step, tolerance in ((1, 1e-5), (2, 1e-2), (STEPS, 0.1)):
        ours, theirs = state(root, job, step)["student"], state(root, "calm-4", step)["student"]
        statistics = [name for name in theirs if "running_" in name]
        assert statistics
        for name in statistics:
            scale = theirs[name].abs().max().clamp_min(1e-2)
            assert (ours[name] - theirs[name]).abs().max() <= tolerance * scale, f"step {step} {name}"


def test_every_ranks_share_is_readable_to_the_next_attempt(root: Path) -> None:
    loaded = load_newest(root / "checkpoints/elastic/checkpoints", "uid", pytest.fail)
    assert loaded is not None
    assert (loaded.step, loaded.manifest.attempt) == (STEPS, 4)


def test_every_rank_computes_in_the_formats_that_rank_0_decided_for(root: Path) -> None:
    assert [record_of(root, "bf16", 1, rank)["teacher"] for rank in range(2)] == ["torch.bfloat16"] * 2
    assert [record_of(root, "calm-2", 1, rank)["teacher"] for rank in range(2)] == ["torch.float32"] * 2
