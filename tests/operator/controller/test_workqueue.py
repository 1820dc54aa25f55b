"""When passes run: which wishes become one pass, and how many passes run at once."""

import asyncio

import pytest

from distill_operator.controller import workqueue
from distill_operator.controller.workqueue import WorkQueue
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

    def failed(self) -> None:
        self.errors += 1


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "GAP_SECONDS", 0.02)
    monkeypatch.setattr(workqueue, "RETRY_SECONDS", (0.02, 0.1))


def run(passes: Passes, *keys: Key, workers: int = 2, seconds: float = 0.3, every: float = 0.0) -> None:
    async def story() -> None:
        queue = WorkQueue(passes, workers, passes.failed)
        for key in keys:
            queue.wake(key)
            await asyncio.sleep(every)
        await asyncio.sleep(seconds)
        await queue.stop()

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


def test_no_more_passes_run_than_there_are_workers() -> None:
    passes = Passes()
    run(passes, *[("team", f"job-{n}") for n in range(10)], workers=3)
    assert len(passes.calls) == 10
    assert passes.most == 3
