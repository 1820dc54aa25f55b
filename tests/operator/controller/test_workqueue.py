"""The parts around the decisions: settings, remembered pods, and when passes run."""

import asyncio
import subprocess
import sys

import pytest

from distill_operator.controller import workqueue
from distill_operator.controller.workqueue import WorkQueue
from distill_operator.kube.pod_cache import Key, PodCache, with_departed
from distill_operator.types.settings import Settings, SettingsError
from tests.support.operator.samples import NOW, pod

KEY: Key = ("team", "tiny")


def test_settings_have_defaults_but_for_the_image() -> None:
    settings = Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", "WATCH_NAMESPACES": ""})
    assert settings == Settings(trainer_image="trainer:1")
    with pytest.raises(SettingsError, match="DEFAULT_TRAINER_IMAGE is not set"):
        Settings.from_environment({})


def test_settings_are_read_from_the_environment() -> None:
    environment = {
        "DEFAULT_TRAINER_IMAGE": "trainer:1",
        "WATCH_NAMESPACES": "a, b",
        "LOG_LEVEL": "debug",
        "PROGRESS_POLL_SECONDS": "0.5",
        "WORKERS": "2",
    }
    settings = Settings.from_environment(environment)
    assert (settings.namespaces, settings.log_level) == (("a", "b"), "DEBUG")
    assert (settings.poll, settings.workers) == (0.5, 2)


@pytest.mark.parametrize(("name", "value"), [("LOG_LEVEL", "LOUD"), ("WORKERS", "0"), ("CLAIM_WAIT_SECONDS", "soon")])
def test_a_wrong_setting_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Settings.from_environment({"DEFAULT_TRAINER_IMAGE": "trainer:1", name: value})


def test_a_wrong_environment_ends_the_process_with_one_line() -> None:
    done = subprocess.run([sys.executable, "-m", "distill_operator"], env={}, capture_output=True, text=True)
    assert done.returncode == 78
    assert done.stderr == "distill-operator: DEFAULT_TRAINER_IMAGE is not set; give the image of the training pods\n"


def raw_pod(uid: str, phase: str = "Running") -> dict[str, object]:
    metadata = {
        "name": uid,
        "uid": uid,
        "creationTimestamp": NOW.isoformat(),
        "labels": {"distilljob.dev/attempt": "1"},
    }
    return {"metadata": metadata, "status": {"phase": phase}}


def test_pods_that_were_noted_and_are_not_listed_any_more_are_gone() -> None:
    here, away = pod(0), pod(1)
    merged = with_departed([here], {here.uid: pod(0, phase="Pending"), away.uid: away})
    assert [(p.uid, p.gone, p.live) for p in merged] == [(here.uid, False, True), (away.uid, True, False)]
    assert merged[0].phase == "Running", "the list is newer than what was noted before it"


def test_the_last_facts_of_a_pod_are_kept_until_they_are_not_needed() -> None:
    evidence = PodCache()
    evidence.note(KEY, raw_pod("a"), deleted=False)
    evidence.note(KEY, raw_pod("a", "Failed"), deleted=True)
    evidence.note(KEY, raw_pod("b"), deleted=False)
    assert {uid: (p.phase, p.gone) for uid, p in evidence.of(KEY).items()} == {
        "a": ("Failed", True),
        "b": ("Running", False),
    }
    evidence.keep_only(KEY, {"b"})
    assert set(evidence.of(KEY)) == {"b"}
    evidence.keep_only(KEY, set())
    assert evidence.of(KEY) == {}


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
