"""When passes run: which wishes become one pass, and how many passes run at once."""

import asyncio
import time

import pytest

from distill_operator.controller import workqueue
from distill_operator.controller.workqueue import WorkQueue
from distill_operator.kube.answers import ApiError
from distill_operator.kube.pod_cache import Key

KEY: Key = ("team", "tiny")


class Passes:
    """Counts passes, and how many ran at once."""

    def __init__(self, seconds: float = 0.02, again: float | None = None, fail: int = 0) -> None:
        self.calls: list[tuple[Key, bool]] = []
        self.running: dict[Key, int] = {}
        self.most = 0
        self.errors = 0
        self._seconds, self._again, self._fail = seconds, again, fail

    async def __call__(self, key: Key, fresh: bool) -> float | None:
        self.calls.append((key, fresh))
        self.running[key] = self.running.get(key, 0) + 1
        assert self.running[key] == 1, "two passes of one job at once"
        self.most = max(self.most, sum(self.running.values()))
        try:
            await asyncio.sleep(self._seconds)
            if len(self.calls) <= self._fail:
                raise ValueError("for a test")
        finally:
            self.running[key] -= 1
        return self._again

    def ended(self, error: BaseException | None) -> None:
        self.errors += error is not None


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "GAP_SECONDS", 0.02)
    monkeypatch.setattr(workqueue, "RETRY_SECONDS", (0.02, 0.1))


def run(passes: Passes, *keys: Key, workers: int = 2, seconds: float = 0.3, every: float = 0.0) -> None:
    async def story() -> None:
        queue = WorkQueue(passes, workers, passes.ended)
        for key in keys:
            queue.wake(key)
            await asyncio.sleep(every)
        await asyncio.sleep(seconds)
        await queue.pause()

    asyncio.run(story())


def test_a_burst_of_events_becomes_one_pass_now_and_one_when_it_is_over() -> None:
    passes = Passes()
    run(passes, *[KEY] * 20)
    assert passes.calls == [(KEY, True)] * 2


def test_an_event_during_a_pass_brings_another_one() -> None:
    passes = Passes(seconds=0.05)
    run(passes, KEY, KEY, every=0.04)
    assert passes.calls == [(KEY, True), (KEY, True)]


def test_a_timer_asks_for_no_fresh_reading() -> None:
    passes = Passes(seconds=0, again=0.05)
    run(passes, KEY)
    assert passes.calls[0] == (KEY, True)
    assert 2 < len(passes.calls) < 9
    assert set(passes.calls[1:]) == {(KEY, False)}


def test_a_pass_that_raised_is_tried_again_later(caplog: pytest.LogCaptureFixture) -> None:
    passes = Passes(seconds=0, fail=2)
    run(passes, KEY)
    assert passes.calls == [(KEY, True)] * 3
    assert passes.errors == 2
    assert "the pass over team/tiny failed" in caplog.text
    assert "Traceback" in caplog.text


def test_no_more_passes_run_than_there_are_workers() -> None:
    passes = Passes()
    run(passes, *[("team", f"job-{n}") for n in range(10)], workers=3)
    assert len(passes.calls) == 10
    assert passes.most == 3


class Throttled:
    """Passes over one job that the API server sends away, and over others that it answers."""

    def __init__(self, asked: float) -> None:
        self.starts: dict[Key, list[float]] = {}
        self._asked = asked

    async def __call__(self, key: Key, fresh: bool) -> float | None:  # noqa: ARG002
        self.starts.setdefault(key, []).append(time.monotonic())
        if key == KEY:
            raise ApiError(429, "", "Too many requests, please try again later.", retry_after=self._asked)
        return 0.02


OTHER: Key = ("team", "other")


def throttled(asked: float) -> Throttled:
    """What happens in 0.5 s in which events of the throttled job never stop, with one slot for all passes."""
    passes = Throttled(asked)

    async def story() -> None:
        queue = WorkQueue(passes, 1, lambda _: None)
        queue.wake(OTHER)
        for _ in range(25):
            queue.wake(KEY)
            await asyncio.sleep(0.02)
        await queue.pause()

    asyncio.run(story())
    return passes


def test_retry_after_is_waited_for_and_holds_no_other_job_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "RETRY_SECONDS", (0.001, 60.0))
    passes = throttled(0.2)
    gaps = [later - before for before, later in zip(passes.starts[KEY], passes.starts[KEY][1:], strict=False)]
    assert len(gaps) == 2
    assert min(gaps) >= 0.19
    assert len(passes.starts[OTHER]) > 8


def test_an_answer_of_the_api_server_is_logged_without_a_traceback(caplog: pytest.LogCaptureFixture) -> None:
    throttled(asked=60.0)
    assert "failed: 429 : Too many requests" in caplog.text
    assert "Traceback" not in caplog.text


def test_a_retry_after_of_a_day_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "RETRY_SECONDS", (0.001, 0.1))
    assert len(throttled(86400.0).starts[KEY]) > 2


def test_a_paused_queue_runs_nothing_and_remembers_who_was_woken() -> None:
    async def story() -> Passes:
        passes = Passes()
        queue = WorkQueue(passes, 2, passes.ended, paused=True)
        for name in ("a", "b", "a"):
            queue.wake(("team", name))
        await asyncio.sleep(0.1)
        assert passes.calls == []
        queue.resume()
        await asyncio.sleep(0.1)
        await queue.pause()
        return passes

    assert sorted(asyncio.run(story()).calls) == [(("team", "a"), True), (("team", "b"), True)]


def test_a_pause_cancels_passes_and_a_later_one_completes_them() -> None:
    async def story() -> tuple[Passes, int]:
        passes = Passes(seconds=0.2, again=60)
        queue = WorkQueue(passes, 1, passes.ended)
        for name in ("running", "waiting"):
            queue.wake(("team", name))
        await asyncio.sleep(0.1)
        await queue.pause()
        cancelled = sum(passes.running.values())
        await asyncio.sleep(0.3)
        assert len(passes.calls) == 1, "no timer is left"
        queue.resume()
        await asyncio.sleep(0.6)
        await queue.pause()
        return passes, cancelled

    passes, running = asyncio.run(story())
    assert running == 0
    assert sorted(name for (_, name), _ in passes.calls) == ["running", "running", "waiting"]
    assert passes.errors == 0
