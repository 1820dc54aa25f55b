"""What a rank shows while it runs: metrics, status, the console; and who notices that it no longer moves."""

import io
import json
import multiprocessing
import re
import socket
import time
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from distill_api.errors import Permanent, Retryable
from distill_api.metrics import TrainerMetric
from distill_api.pod.report import TrainerStatus
from distill_trainer.process.launcher.rendezvous import Endpoint, wait_for_name
from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import MEETING, Stall, Watchdog
from distill_trainer.process.telemetry.console import Console
from distill_trainer.process.telemetry.metrics import TrainerMetrics
from distill_trainer.process.telemetry.server import StatusServer
from distill_trainer.process.telemetry.status import RankStatus, short_duration


class Clock:
    """A clock that moves when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def metrics_of(rank: int) -> TrainerMetrics:
    return TrainerMetrics(rank=rank, world_size=2, checkpoint_interval=60, versions={"torch": "2"})


def exposed(metrics: TrainerMetrics) -> dict[str, float]:
    lines = [line for line in metrics.exposition().decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_metrics_say_what_happened_under_the_contracts_names() -> None:
    metrics = metrics_of(0)
    metrics.planned(steps=40, epochs=2)
    metrics.resumed(10)
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
        TrainerMetric.RESUMED_FROM_STEP: 10,
        TrainerMetric.LAST_CHECKPOINT_STEP: 10,
        TrainerMetric.LAST_CHECKPOINT_TIME: 50,
        TrainerMetric.CHECKPOINT_FALLBACKS: 1,
        TrainerMetric.CHECKPOINT_INTERVAL: 60,
        TrainerMetric.GRAD_NORM: 3,
        TrainerMetric.AMP_SCALE: 1024,
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
    other.planned(steps=40, epochs=2)
    other.step(images=8, seconds=0.5, step=11, epoch=1)
    other.evaluated("student", map50=0.5, map50_95=0.25)
    names = {name.partition("{")[0] for name in exposed(other)}

    assert TrainerMetric.IMAGES in names
    assert not names & {TrainerMetric.IMAGES_PER_SECOND, TrainerMetric.EVAL_MAP, TrainerMetric.STEPS_PLANNED}


def board_of(clock: Clock, copy: Path | None = None) -> RankStatus:
    return RankStatus(job="j", attempt=2, rank=0, world_size=2, images_per_second=lambda: 12.5, copy=copy, clock=clock)


def test_the_board_merges_progress_and_tells_the_time_left(tmp_path: Path) -> None:
    clock = Clock()
    status = board_of(clock, tmp_path / "status.json")
    status.update(state="training", resumed_from_step=100)
    status.progress(step=100, steps=1000, epochs=5)
    clock.now += 50
    status.progress(step=110, student_map=0.25)
    status.progress(teacher_map=0.5)
    status = status.read()

    assert status.state == "training"
    assert (status.progress.step, status.progress.steps, status.progress.epochs) == (110, 1000, 5)
    assert (status.progress.eta_seconds, status.progress.eta) == (4450, "1h14m")
    assert status.progress.images_per_second == 12.5
    assert status.progress.map_gap == 0.25
    assert TrainerStatus.model_validate_json((tmp_path / "status.json").read_text()).progress.step == 110
    with pytest.raises(ValueError, match="stat"):
        status.update(stat="x")
    with pytest.raises(ValueError, match="stepp"):
        status.progress(stepp=1)


def test_the_board_says_when_the_rank_moved_last_and_where_it_was_resumed() -> None:
    clock, at = Clock(), datetime(2026, 1, 1, tzinfo=UTC)
    watchdog = Watchdog(timeout=60, stopping_timeout=10, stop_requested=bool, on_stall=lambda _: None, clock=clock)
    status = RankStatus(
        job="j", attempt=2, rank=0, world_size=2, images_per_second=lambda: None, moved_at=lambda: watchdog.moved_at
    )
    status.resumed(100, at)
    clock.now += 50
    moved_at = status.read().moved_at
    assert moved_at is not None
    assert (datetime.now(UTC) - moved_at).total_seconds() == pytest.approx(50, abs=1)
    watchdog.beat("validation")
    told = json.loads(status.to_json())
    assert datetime.now(UTC) - datetime.fromisoformat(told["movedAt"]) < timedelta(seconds=1)
    assert (told["resumedFromStep"], told["progress"]["step"], told["progress"]["committedStep"]) == (100, 100, 100)
    assert datetime.fromisoformat(told["progress"]["committedAt"]) == at


def test_the_first_step_reaches_the_copy_at_once(tmp_path: Path) -> None:
    status = board_of(Clock(), tmp_path / "status.json")
    status.update(state="training")
    status.update(steps_this_attempt=1)
    assert TrainerStatus.model_validate_json((tmp_path / "status.json").read_text()).steps_this_attempt == 1


def test_a_resumed_attempt_knows_its_last_checkpoint() -> None:
    metrics = metrics_of(0)
    metrics.resumed(10, datetime.fromtimestamp(50, UTC))
    values = exposed(metrics)
    assert (values[TrainerMetric.LAST_CHECKPOINT_STEP], values[TrainerMetric.LAST_CHECKPOINT_TIME]) == (10, 50)


@pytest.mark.parametrize(
    ("stall_timeout", "collective", "watchdog"),
    [(600, 300, 480), (100, 60, 80), (12, 8.4, 9.6), (1, 0.7, 0.8), (7200, 3600, 5760)],
)
def test_a_waiting_collective_gives_up_first_then_the_watchdog_then_the_operator(
    stall_timeout: int, collective: float, watchdog: float
) -> None:
    waits = timeouts(stall_timeout)
    assert (waits.collective, waits.watchdog, waits.operator) == pytest.approx((collective, watchdog, stall_timeout))
    assert waits.collective < waits.watchdog < waits.operator


def test_committed_steps_fallbacks_and_other_versions_reach_the_status() -> None:
    status = board_of(Clock())
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


def test_the_server_serves_its_pages_and_names_them_on_a_wrong_path() -> None:
    server = StatusServer(0, {"/status": ("application/json", lambda: b'{"a": 1}')})
    try:
        answer = urllib.request.urlopen(f"http://127.0.0.1:{server.port}/status?x=1")
        assert (answer.headers["Content-Type"], json.load(answer)) == ("application/json", {"a": 1})
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"http://127.0.0.1:{server.port}/nothing")
    finally:
        server.close()


def test_a_taken_port_is_replaced_by_a_free_one() -> None:
    first = StatusServer(0, {"/healthz": ("text/plain", lambda: b"ok")})
    second = StatusServer(first.port, {"/healthz": ("text/plain", lambda: b"ok")})
    try:
        assert second.port != first.port
        assert urllib.request.urlopen(f"http://127.0.0.1:{second.port}/healthz").read() == b"ok"
    finally:
        second.close()
        first.close()


def test_a_forked_data_loading_process_does_not_keep_the_port() -> None:
    server = StatusServer(0, {"/healthz": ("text/plain", lambda: b"ok")})
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(30,))
    child.start()
    try:
        server.close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", server.port), 1)
    finally:
        child.kill()
        child.join()


class Terminal(io.StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


def run_epoch(console: Console) -> None:
    console.epoch_started(1, 2, batches=2)
    console.batch_done({"box": 1.0})
    console.batch_done({"box": 1.0})
    console.epoch_done(1, 2, {"box": 1.25, "cls": 2.0, "dfl": 0.5, "dis": 3.0}, 4.0, 0.125)


def test_without_a_terminal_there_is_one_line_per_epoch() -> None:
    stream = io.StringIO()
    run_epoch(Console(enabled=True, stream=stream))
    assert stream.getvalue() == "epoch 1/2  box 1.25  cls 2  dfl 0.5  dis 3  mAP50-95 0.1250  4.0s\n"


def test_in_a_terminal_there_is_a_bar_and_other_ranks_say_nothing() -> None:
    terminal, silent = Terminal(), Terminal()
    run_epoch(Console(enabled=True, stream=terminal))
    run_epoch(Console(enabled=False, stream=silent))

    assert "2/2" in terminal.getvalue()
    assert silent.getvalue() == ""


@pytest.mark.parametrize(
    ("still", "stop_before", "stall"),
    [
        (59, None, None),
        (60, None, Stall("backward", 60, False)),
        (9, 9, None),
        (30, 9, None),
        (30, 10, Stall("backward", 30, True)),
    ],
)
def test_a_stall_is_noticed_after_its_timeout_and_sooner_once_a_stop_is_asked_for(
    still: float, stop_before: float | None, stall: Stall | None
) -> None:
    clock, stop = Clock(), False
    watchdog = Watchdog(
        timeout=60, stopping_timeout=10, stop_requested=lambda: stop, on_stall=lambda _: None, clock=clock
    )
    watchdog.beat("backward")
    if stop_before is not None:
        clock.now += still - stop_before
        stop = True
        assert watchdog.check() is None
        clock.now += stop_before
    else:
        clock.now += still
    assert watchdog.check() == stall


def test_a_rank_that_is_asked_to_stop_while_it_waits_for_the_others_to_come_does_not_wait_any_longer() -> None:
    clock = Clock()
    watchdog = Watchdog(timeout=60, stopping_timeout=10, stop_requested=lambda: True, on_stall=print, clock=clock)
    watchdog.beat(MEETING)
    assert watchdog.check() is None
    clock.now += 1
    assert watchdog.check() == Stall(MEETING, 1, True)


def test_a_name_that_appears_late_is_waited_for_and_one_that_never_does_is_told() -> None:
    clock = Clock()
    wait_for_name("node-0", 60, known=lambda _: clock.now > 1020, clock=clock, sleep=clock.sleep)
    assert 1020 < clock.now < 1024
    with pytest.raises(Retryable, match="the name node-0 of node 0 had no address for 60 s"):
        wait_for_name("node-0", 60, known=lambda _: False, clock=clock, sleep=clock.sleep)


@pytest.mark.parametrize("text", ["host", "host:", ":1", "host:0", "host:70000", "host:x"])
def test_a_wrong_endpoint_is_a_permanent_error(text: str) -> None:
    with pytest.raises(Permanent, match="it must be host:port"):
        Endpoint.parse(text)
