"""What the client makes of an answer, with a real HTTP server: the status first, then the body, whatever it is."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
import pytest
from aiohttp import web
from kubernetes.aio.client import Configuration
from kubernetes.aio.client.api_client import ApiClient

from distill_api.reasons import Reason
from distill_operator.controller.operator import MissingCrdError, Operator
from distill_operator.kube import answers, client
from distill_operator.kube.answers import NO_ANSWER, ApiError
from distill_operator.kube.apply import record
from distill_operator.kube.client import Kube
from distill_operator.types.actions import Event
from tests.support.operator.samples import NOW, SETTINGS

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Result = TypeVar("Result")

LOCAL = "127.0.0.1"


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", LOCAL)


def kube_at(port: int) -> Kube:
    return Kube(ApiClient(Configuration(host=f"http://{LOCAL}:{port}")))


def asked(handler: Handler, story: Callable[[Kube], Awaitable[Result]]) -> Result:
    """What the story gets from a server that answers every request with the handler."""

    async def run() -> Result:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, LOCAL, 0)
        await site.start()
        kube = kube_at(runner.addresses[0][1])
        try:
            return await story(kube)
        finally:
            await kube.close()
            await runner.cleanup()

    return asyncio.run(run())


def always(status: int, body: str | bytes = "", **headers: str) -> Handler:
    """A handler with one answer, as text unless the headers say otherwise."""
    content = body.encode() if isinstance(body, str) else body
    shown = {"Content-Type": "text/plain; charset=utf-8"} | {n.replace("_", "-"): v for n, v in headers.items()}

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=content, headers=shown)

    return answer


async def get_job(kube: Kube) -> Any:
    return await kube.get("Job", "team", "tiny-a1")


async def create_job(kube: Kube) -> Any:
    return await kube.create("Job", "team", {"kind": "Job", "metadata": {"name": "tiny-a1"}})


def error_of(handler: Handler, story: Callable[[Kube], Awaitable[Any]] = create_job) -> ApiError:
    with pytest.raises(ApiError) as raised:
        asked(handler, story)
    return raised.value


NOT_FOUND = always(404, "404 page not found\n")


def test_a_plain_text_404_means_that_the_object_does_not_exist() -> None:
    assert asked(NOT_FOUND, get_job) is None
    asked(NOT_FOUND, lambda kube: kube.delete("Job", "team", "tiny-a1", "uid", foreground=True))


def test_an_operator_without_its_crd_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(kube: Kube) -> None:
        async def connect() -> Kube:
            return kube

        monkeypatch.setattr(Kube, "connect", connect)
        await Operator(SETTINGS).start()

    with pytest.raises(MissingCrdError, match=r"distilljobs\.distilljob\.dev is not installed"):
        asked(NOT_FOUND, start)


def test_a_text_body_is_the_message_of_the_error() -> None:
    error = error_of(always(429, "Too many requests,\n please try again later.\n", Retry_After="7"))
    assert (error.code, error.message, error.retry_after) == (429, "Too many requests, please try again later.", 7.0)
    assert error.pushes_back


def test_a_status_of_kubernetes_gives_reason_and_message() -> None:
    body = '{"kind": "Status", "reason": "AlreadyExists", "message": "jobs.batch \\"tiny-a1\\" already exists"}'
    error = error_of(always(409, body, Content_Type="application/json"))
    assert (error.code, error.reason, error.message) == (409, "AlreadyExists", 'jobs.batch "tiny-a1" already exists')
    assert (error.retry_after, error.pushes_back) == (None, False)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "Forbidden"),
        (b"[1, 2]", "[1, 2]"),
        (b'{"message": 5, "reason": {}}', '{"message": 5, "reason": {}}'),
        (b"\xff\xfe no UTF-8", "\ufffd\ufffd no UTF-8"),
        (b"[" * 60_000, "[" * answers.MAX_MESSAGE),
        (b"x" * 10**6, "x" * answers.MAX_MESSAGE),
    ],
    ids=["empty", "list", "odd fields", "no UTF-8", "nested", "long"],
)
def test_no_body_of_an_error_hides_its_status(body: bytes, message: str) -> None:
    error = error_of(always(403, body))
    assert (error.code, error.reason, error.message) == (403, "", message)


@pytest.mark.parametrize(
    ("status", "header", "seconds"),
    [
        (429, "1", 1.0),
        (503, "5", 5.0),
        (500, "2", 2.0),
        (409, "3", None),
        (429, "Wed, 21 Oct 2026 07:28:00 GMT", None),
        (429, "-1", None),
        (429, "9" * 400, None),
    ],
)
def test_retry_after_is_read_from_errors_that_pass(status: int, header: str, seconds: float | None) -> None:
    assert error_of(always(status, "later", Retry_After=header)).retry_after == seconds


def test_an_answer_without_end_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "MAX_BODY", 100_000)
    sent = []

    async def endless(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(status=403 if request.method == "POST" else 200)
        await response.prepare(request)
        for _ in range(2000):
            await response.write(b"y" * 50_000)
            sent.append(50_000)
        return response

    assert error_of(endless).code == 403
    error = error_of(endless, get_job)
    assert (error.code, error.reason) == (NO_ANSWER, "Unreadable")
    assert "more than 100000 bytes" in error.message
    assert sum(sent) < 2 * 50_000_000


def test_a_page_of_a_proxy_is_no_object() -> None:
    error = error_of(always(200, "<html>please log in</html>"), get_job)
    assert (error.code, error.reason) == (NO_ANSWER, "Unreadable")
    assert "<html>please log in</html>" in error.message


def test_a_request_without_an_answer_is_an_error_of_its_own_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "REQUEST_SECONDS", 0.2)

    async def silent(_: web.Request) -> web.StreamResponse:
        await asyncio.sleep(5)
        return web.Response()

    async def hangs_up(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    async def stops_in_mid_body(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b'{"kind"')
        assert request.transport is not None
        request.transport.close()
        return response

    for handler, reason in ((silent, "Timeout"), (hangs_up, "Unreachable"), (stops_in_mid_body, "Unreachable")):
        error = error_of(handler)
        assert (error.code, error.reason) == (NO_ANSWER, reason), handler.__name__
        assert "POST /apis/batch/v1/namespaces/team/jobs" in error.message
        assert error.pushes_back

    async def nobody() -> None:
        kube = kube_at(1)
        try:
            await get_job(kube)
        finally:
            await kube.close()

    with pytest.raises(ApiError) as raised:
        asyncio.run(nobody())
    assert raised.value.code == NO_ANSWER
    assert isinstance(raised.value.__cause__, aiohttp.ClientError)


EVENTS = tuple(Event(Reason.TRAINING, f"event {number}") for number in range(3))


def written(handler: Handler) -> int:
    """How many requests a pass makes for three events."""
    requests = []

    async def counted(request: web.Request) -> web.StreamResponse:
        requests.append(request.path)
        return await handler(request)

    raw = {"metadata": {"name": "tiny", "namespace": "team", "uid": "u"}}
    asked(counted, lambda kube: record(kube, raw, EVENTS, NOW))
    return len(requests)


def test_a_throttled_event_raises_nothing_and_the_others_are_not_tried() -> None:
    assert written(always(429, "Too many requests, please try again later.", Retry_After="1")) == 1
    assert written(always(403, "no")) == 3
    assert written(always(201, "{}")) == 3


def lists(*versions: str) -> Handler:
    """A handler whose lists have these versions, one after the other."""
    left = list(versions)

    async def answer(_: web.Request) -> web.StreamResponse:
        return web.json_response({"metadata": {"resourceVersion": left.pop(0)}, "items": []})

    return answer


def test_a_list_that_is_older_than_the_last_one_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def one_after_the_other(kube: Kube) -> None:
        await kube.list("Pod", "team")
        await kube.list("Pod", "team")

    with pytest.raises(ApiError, match="the list has version 99, an earlier one had 100") as error:
        asked(lists("100", "99"), one_after_the_other)
    assert error.value.code == NO_ANSWER
    monkeypatch.setattr(client, "STALE_SECONDS", 0.0)
    asked(lists("100", "99"), one_after_the_other)  # long ago: an etcd that was restored counts again


def test_lists_that_overtake_each_other_are_answers() -> None:
    async def at_once(kube: Kube) -> None:
        await asyncio.gather(kube.list("Pod", "team"), kube.list("Pod", "team"))

    asked(lists("100", "99"), at_once)
