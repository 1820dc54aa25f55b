"""Asking rank 0: what is taken for an answer, how often it is asked, and what a silence is."""

import asyncio
import gzip
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web

from distill_api.pod.report import TrainerStatus
from distill_operator.controller.rank0 import client, poller
from distill_operator.controller.rank0.client import MAX_BYTES, NoAnswerError, Target
from distill_operator.controller.rank0.poller import Poller
from distill_operator.controller.reconcile import rank0_of
from distill_operator.kube.pod_cache import Key
from distill_operator.types import naming
from tests.support.operator.samples import UID, answer, attempt, child, closed, job, observed, pod, status

TARGET = Target("127.0.0.1", UID, 1)
GOOD = answer(30).to_wire()


def said(**fields: Any) -> str:
    return json.dumps({**GOOD, **fields})


def ask(body: Callable[[web.Request], Awaitable[web.StreamResponse]], monkeypatch: pytest.MonkeyPatch) -> TrainerStatus:
    """What the client makes of a server's answer."""

    async def story() -> TrainerStatus:
        app = web.Application()
        app.router.add_get("/{path:.*}", body)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        monkeypatch.setattr(naming, "status_url", lambda ip: f"http://{ip}:{port}/status")
        async with client.session() as http:
            try:
                return await client.ask(http, TARGET)
            finally:
                await runner.cleanup()

    return asyncio.run(story())


def test_a_good_answer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(text=said())

    assert ask(body, monkeypatch) == answer(30)


HUGE = 10**400
BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "not a trainer's status"),
    "no JSON": (b"<html>", "not a trainer's status"),
    "not UTF-8": (b'{"job": "\xff\xfe"}', "not a trainer's status"),
    "deeply nested": (b"[" * 60000, "not a trainer's status"),
    "huge integer": (said(stepsThisAttempt=HUGE).encode(), "stepsThisAttempt"),
    "integer beyond 2^53": (said(progress={"step": 2**60}).encode(), "progress.step"),
    "negative step": (said(progress={"committedStep": -1}).encode(), "progress.committedStep"),
    "NaN of seconds": (said(seconds={"training": float("nan")}).encode(), "seconds.training"),
    "infinite idle time": (said(idleSeconds=float("inf")).encode(), "idleSeconds"),
    "time without a zone": (said(progress={"committedAt": "2026-11-23T12:00:00"}).encode(), "committedAt"),
    "long text": (said(progress={"eta": "x" * 9999}).encode(), "progress.eta"),
    "many versions": (said(versionChanges=[{"name": "a", "checkpoint": "1", "attempt": "2"}] * 99).encode(), "version"),
    "another job": (said(uid="other").encode(), "another job or attempt"),
    "another attempt": (said(attempt=2).encode(), "another job or attempt"),
    "no uid": (json.dumps({k: v for k, v in GOOD.items() if k != "uid"}).encode(), "uid"),
    "too long": (b" " * (MAX_BYTES + 1), "longer than 64 KiB"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_answer_is_a_missed_poll_with_a_reason(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_, why = BAD[kind]

    async def body(_: web.Request) -> web.Response:
        return web.Response(body=bytes_)

    with pytest.raises(NoAnswerError, match=why) as error:
        ask(body, monkeypatch)
    assert len(str(error.value)) <= 200


def test_a_loss_that_is_not_a_number_is_no_reason_to_miss_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(_: web.Request) -> web.Response:
        return web.Response(text=said(progress={"step": 5, "distillationLoss": float("nan")}))

    read = ask(body, monkeypatch)
    assert (read.progress.step, read.progress.distillation_loss) == (5, None)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    async def body(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(status=302, headers={"Location": "/metadata"})

    with pytest.raises(NoAnswerError, match="HTTP status 302"):
        ask(body, monkeypatch)
    assert asked == ["/status"]


def test_a_compressed_answer_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    async def body(_: web.Request) -> web.Response:
        return web.Response(body=gzip.compress(b" " * 10**7), headers={"Content-Encoding": "gzip"})

    with pytest.raises(NoAnswerError, match="compressed"):
        ask(body, monkeypatch)


def test_an_endless_answer_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    sent = 0

    async def body(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        stream = web.StreamResponse()
        await stream.prepare(request)
        while sent < 10**9:
            await stream.write(b" " * 8192)
            sent += 8192
        return stream

    with pytest.raises(NoAnswerError, match="longer than 64 KiB"):
        ask(body, monkeypatch)
    assert sent < 10**8


def test_a_rank_0_that_says_nothing_is_waited_for_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.1)

    async def body(_: web.Request) -> web.Response:
        await asyncio.sleep(1)
        return web.Response()

    with pytest.raises(NoAnswerError, match="timed out"):
        ask(body, monkeypatch)


# The poller.


def key(number: int) -> Key:
    return ("team", f"job-{number}")


class Ranks:
    """Rank 0s by address: those in `silent` do not answer."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.seconds = 0.0
        self.asked: list[str] = []
        self.steps: dict[str, int] = {}
        self.woken: list[Key] = []
        self.at_once, self.most = 0, 0

    async def __call__(self, target: Target) -> TrainerStatus:
        self.asked.append(target.ip)
        if target.ip in self.silent:
            self.at_once += 1
            self.most = max(self.most, self.at_once)
            await asyncio.sleep(self.seconds)
            self.at_once -= 1
            raise NoAnswerError("timed out")
        await asyncio.sleep(0)
        return answer(self.steps.get(target.ip, 30))

    def poller(self, clock: Callable[[], float] | None = None) -> Poller:
        return Poller(self, self.woken.append, 0.01, **({"clock": clock} if clock else {}))


def run(story: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(asyncio.wait_for(story(), 20))  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poller, "LONGEST_SECONDS", 0.02)
    monkeypatch.setattr(poller, "LONGEST_GAP_SECONDS", 60.0)


def test_a_job_is_woken_when_its_answer_has_changed_and_not_before() -> None:
    async def story() -> None:
        ranks = Ranks()
        polls = ranks.poller()
        polls.watch(key(1), Target("a", UID, 1))
        await asyncio.sleep(0.1)
        assert len(ranks.asked) > 3
        assert ranks.woken == [key(1)]
        ranks.steps["a"] = 31
        await asyncio.sleep(0.1)
        assert ranks.woken == [key(1)] * 2
        assert polls.answer(key(1)) == answer(31)
        await polls.stop()

    run(story)


def test_a_hundred_silent_rank_0s_do_not_delay_another_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each holds a slot for as long as a request may take; more than the slots are asked at once."""
    monkeypatch.setattr(poller, "LONGEST_SECONDS", 15.0)

    async def story() -> None:
        ranks = Ranks()
        ranks.seconds, ranks.silent = 0.2, {f"silent-{n}" for n in range(100)}
        polls = ranks.poller()
        for number in range(100):
            polls.watch(key(number), Target(f"silent-{number}", UID, 1))
        await asyncio.sleep(0.05)
        polls.watch(key(1000), Target("a", UID, 1))
        await asyncio.sleep(0.45)  # two rounds of slots
        assert polls.answer(key(1000)) is not None
        assert ranks.most == poller.CONCURRENT
        await polls.stop()

    run(story)


def test_only_time_in_which_rank_0_was_asked_is_silence() -> None:
    async def story() -> None:
        ranks, now = Ranks(), [0.0]
        ranks.silent = {"a"}
        polls = ranks.poller(lambda: now[0])
        polls.watch(key(1), Target("a", UID, 1))
        await asyncio.sleep(0.03)
        now[0] += 7200  # the operator's machine slept
        await asyncio.sleep(0.1)
        silence = polls.silence(key(1))
        assert silence is not None
        assert (silence.misses > 2, silence.seconds, silence.why) == (True, 0.0, "timed out")
        for _ in range(5):
            now[0] += 10
            await asyncio.sleep(0.05)
        silence = polls.silence(key(1))
        assert silence is not None
        assert 40 <= silence.seconds <= 50
        ranks.silent.clear()
        await asyncio.sleep(0.1)
        assert polls.silence(key(1)) is None
        await polls.stop()

    run(story)


def test_many_jobs_that_fall_silent_together_are_a_problem_of_the_operator() -> None:
    async def story() -> None:
        ranks, now = Ranks(), [0.0]
        polls = ranks.poller(lambda: now[0])
        for number in range(5):
            polls.watch(key(number), Target(f"rank0-{number}", UID, 1))
        ranks.silent = {"rank0-0", "rank0-1"}
        await asyncio.sleep(0.2)
        few = polls.silence(key(0))
        assert few is not None
        assert not few.widespread
        assert polls.silent_jobs() == 2
        ranks.silent = {f"rank0-{number}" for number in range(5)}
        await asyncio.sleep(0.2)
        before = polls.silence(key(0))
        now[0] += 10
        await asyncio.sleep(0.1)
        many = polls.silence(key(0))
        assert before is not None
        assert many is not None
        assert many.widespread
        assert many.seconds == before.seconds, "time in which most are silent counts for none"
        await polls.stop()

    run(story)


def test_a_new_rank_0_starts_without_its_predecessors_silence() -> None:
    async def story() -> None:
        ranks = Ranks()
        ranks.silent = {"a"}
        polls = ranks.poller()
        polls.watch(key(1), Target("a", UID, 1))
        await asyncio.sleep(0.1)
        polls.watch(key(1), Target("b", UID, 2))
        assert polls.silence(key(1)) is None
        assert polls.answer(key(1)) is None
        asked = len(ranks.asked)
        polls.watch(key(1), None)
        await asyncio.sleep(0.05)
        assert len(ranks.asked) - asked <= 1
        await polls.stop()

    run(story)


def test_a_request_that_fails_unexpectedly_is_a_miss() -> None:
    async def story() -> None:
        calls = 0

        async def broken(_: Target) -> TrainerStatus:
            nonlocal calls
            calls += 1
            raise RuntimeError("for a test")

        polls = Poller(broken, lambda _: None, 0.01)
        polls.watch(key(1), TARGET)
        await asyncio.sleep(0.2)
        silence = polls.silence(key(1))
        assert silence is not None
        assert silence.why == "RuntimeError"
        assert calls > 2
        await polls.stop()

    run(story)


def test_rank_0_is_asked_while_it_runs() -> None:
    running = job(status(attempt()))
    assert rank0_of(observed(running, pod(0, ip="10.0.0.1"), pod(1), jobs=(child(),))) == Target("10.0.0.1", UID, 1)
    assert rank0_of(observed(running, pod(0, phase="Pending"), pod(1), jobs=(child(),))) is None
    assert rank0_of(observed(running, pod(0, gone=True), jobs=(child(),))) is None
    assert rank0_of(observed(job(status(closed())), pod(0))) is None
