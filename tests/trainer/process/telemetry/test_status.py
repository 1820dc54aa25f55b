"""What a rank says of itself: its status, and the time that is left."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from distill_api.pod.report import TrainerStatus
from distill_trainer.process.liveness.watchdog import Watchdog
from distill_trainer.process.telemetry.status import RankStatus, short_duration
from tests.support.machine.clock import Clock


def status_of(clock: Clock, copy: Path | None = None) -> RankStatus:
    return RankStatus(
        job="j", uid="u", attempt=2, rank=0, world_size=2, images_per_second=lambda: 12.5, copy=copy, clock=clock
    )


def test_the_status_merges_progress_and_tells_the_time_left(tmp_path: Path) -> None:
    clock = Clock()
    status = status_of(clock, tmp_path / "status.json")
    status.update(state="training", resumed_from_step=100)
    status.progress(step=100, steps=1000, epochs=5)
    clock.now += 50
    status.progress(step=110, student_map=0.25)
    status.progress(teacher_map=0.5)
    told = status.read()

    assert told.state == "training"
    assert (told.progress.step, told.progress.steps, told.progress.epochs) == (110, 1000, 5)
    assert (told.progress.eta_seconds, told.progress.eta) == (4450, "1h14m")
    assert told.progress.images_per_second == 12.5
    assert told.progress.map_gap == 0.25
    assert TrainerStatus.model_validate_json((tmp_path / "status.json").read_text()).progress.step == 110
    with pytest.raises(ValueError, match="stat"):
        status.update(stat="x")
    with pytest.raises(ValueError, match="stepp"):
        status.progress(stepp=1)


def test_the_status_says_when_the_rank_moved_last_and_where_it_was_resumed() -> None:
    clock, at = Clock(), datetime(2026, 1, 1, tzinfo=UTC)
    watchdog = Watchdog(timeout=60, stopping_timeout=10, stop_requested=bool, on_stall=lambda _: None, clock=clock)
    status = RankStatus(
        job="j",
        uid="u",
        attempt=2,
        rank=0,
        world_size=2,
        images_per_second=lambda: None,
        idle_seconds=lambda: watchdog.idle_seconds,
    )
    status.resumed(100, at)
    clock.now += 50
    assert status.read().idle_seconds == 50
    watchdog.beat("validation")
    told = json.loads(status.to_json())
    assert told["idleSeconds"] == 0
    assert (told["resumedFromStep"], told["progress"]["step"], told["progress"]["committedStep"]) == (100, 100, 100)
    assert datetime.fromisoformat(told["progress"]["committedAt"]) == at


def test_the_first_step_reaches_the_copy_at_once(tmp_path: Path) -> None:
    status = status_of(Clock(), tmp_path / "status.json")
    status.update(state="training")
    status.update(steps_this_attempt=1)
    assert TrainerStatus.model_validate_json((tmp_path / "status.json").read_text()).steps_this_attempt == 1


def test_committed_steps_fallbacks_and_other_versions_reach_the_status() -> None:
    status = status_of(Clock())
    status.checkpoint_committed(5, datetime(2026, 1, 1, tzinfo=UTC))
    status.checkpoint_fell_back()
    status.versions_changed({"torch": ("2.8.0", "2.9.0")})

    assert status.read().progress.committed_step == 5
    assert status.read().checkpoint_fallbacks == 1
    assert json.loads(status.to_json())["versionChanges"] == [
        {"name": "torch", "checkpoint": "2.8.0", "attempt": "2.9.0"}
    ]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0s"), (59, "59s"), (60, "1m"), (3600, "1h"), (4800, "1h20m"), (90000, "1d1h")]
)
def test_durations_for_people(seconds: int, text: str) -> None:
    assert short_duration(seconds) == text
