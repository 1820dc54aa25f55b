"""A proxy between the operator and the API server, in which a fault may meet any request.

It listens to plain HTTP on a free port and holds the operator's client certificate.
"""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from tests.support.apiserver.api import Api

PATH = re.compile(
    r"/(?:api|apis/[^/]+)/[^/]+(?:/namespaces/[^/]+)?/(?P<kind>[a-z]+)(?:/(?P<name>[^/]+))?(?P<sub>/status)?"
)
PASSED_ON = ("Accept", "Content-Type", "User-Agent")
RETURNED = ("Content-Type", "Date", "Retry-After")


@dataclass(frozen=True)
class Asked:
    """One request of the operator."""

    method: str
    target: str
    """Path with query."""
    headers: dict[str, str] = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def watches(self) -> bool:
        """Whether the answer is a stream of events."""
        return "watch=true" in self.target

    @property
    def writes(self) -> bool:
        """Whether it changes something."""
        return self.method != "GET"

    @property
    def resource(self) -> tuple[str, str, str]:
        """Plural, name and subresource; empty where the path has none."""
        found = PATH.match(self.target.partition("?")[0])
        return (found["kind"], found["name"] or "", found["sub"] or "") if found else ("", "", "")

    @property
    def what(self) -> str:
        """A write in words, which are the same in every life: `create jobs tiny-a1`, `status Running, attempt 1`."""
        kind, name, sub = self.resource
        content = json.loads(self.body or b"{}")
        if sub:
            return f"status {_of_status(content.get('status') or {})}"
        if kind == "events":
            return f"create event {content['reason']}"
        verb = {"POST": "create", "PUT": "replace", "PATCH": "patch", "DELETE": "delete"}.get(self.method, self.method)
        return f"{verb} {kind} {name or content['metadata'].get('name')}"


def _of_status(status: dict[str, Any]) -> str:
    newest = (status.get("attempts") or [{}])[-1]
    parts = [status.get("phase"), f"attempt {status.get('attempt', 0)}"]
    parts += [newest.get(key) for key in ("outcome", "reason")]
    parts.append((status.get("waiting") or {}).get("reason"))
    parts.append("step " + str(newest["step"]) if newest.get("step") else None)
    return ", ".join(str(part) for part in parts if part)


@dataclass(frozen=True)
class Answer:
    """An answer as the operator gets it."""

    status: int
    body: bytes
    headers: dict[str, str]
    cut: bool = False
    """Whether the connection breaks before the last byte."""

    def with_body(self, body: bytes, content_type: str = "application/json") -> "Answer":
        """The same with another body."""
        return replace(self, body=body, headers={**self.headers, "Content-Type": content_type})


class Lost(Exception):
    """The connection breaks without an answer."""


class Last(Exception):
    """A watch ends with these bytes."""

    def __init__(self, told: bytes) -> None:
        self.told = told


Forward = Callable[[Asked], Awaitable[Answer]]


class Undisturbed:
    """Passes everything on. Faults are subclasses."""

    async def answer(self, asked: Asked, forward: Forward) -> Answer:
        """The answer to a request that is no watch. Raises Lost to break the connection."""
        return await forward(asked)

    async def opens(self) -> Answer | None:
        """The answer instead of a watch; None opens it."""
        return None

    async def event(self, watch: str, line: bytes) -> bytes:  # noqa: ARG002
        """What is passed on of a line of a watch on this plural. Raises Lost to break the watch, Last to end it."""
        return line


class Proxy:
    """One operator's way to the API server; as a context manager it listens. `fault` may be changed at any time."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._upstream: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.fault = Undisturbed()
        self.writes: list[str] = []
        """Every write since the list was cleared, in words."""
        self.port = 0

    def __enter__(self) -> "Proxy":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def kubeconfig(self, path: Path) -> Path:
        """Write the kubeconfig of the operator behind this proxy."""
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": f"http://127.0.0.1:{self.port}"}}],
            "users": [{"name": "operator", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "operator"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(document))
        return path

    async def _start(self) -> None:
        connector = aiohttp.TCPConnector(ssl=self._api.context, limit=0)
        self._upstream = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        app = web.Application(client_max_size=2**26)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._upstream is not None
        await self._runner.cleanup()
        await self._upstream.close()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        headers = {name: request.headers[name] for name in PASSED_ON if name in request.headers}
        asked = Asked(request.method, request.path_qs, headers, await request.read())
        try:
            refused = await self.fault.opens() if asked.watches else None
            if asked.watches and refused is None:
                return await self._watch(request, asked)
            if asked.writes:
                self.writes.append(asked.what)
            answer = refused or await self.fault.answer(asked, self._forward)
            if not answer.cut:
                return web.Response(status=answer.status, body=answer.body, headers=answer.headers)
            broken = web.StreamResponse(status=answer.status, headers=answer.headers)
            broken.content_length = len(answer.body) + 100
            await broken.prepare(request)
            await broken.write(answer.body)
        except (Lost, aiohttp.ClientError, OSError):
            pass
        if request.transport is not None:
            request.transport.abort()
        return web.Response(status=502)

    async def _forward(self, asked: Asked) -> Answer:
        """The API server's answer. A request that was sent is completed even if the operator hangs up meanwhile."""
        return await asyncio.shield(asyncio.ensure_future(self._request(asked)))

    async def _request(self, asked: Asked) -> Answer:
        async with self._ask(asked) as answer:
            headers = {name: answer.headers[name] for name in RETURNED if name in answer.headers}
            return Answer(answer.status, await answer.read(), headers)

    def _ask(self, asked: Asked) -> Any:
        assert self._upstream is not None
        headers = {**asked.headers, "Accept-Encoding": "identity"}
        return self._upstream.request(
            asked.method, self._api.server + asked.target, data=asked.body or None, headers=headers
        )

    async def _watch(self, request: web.Request, asked: Asked) -> web.StreamResponse:
        async with self._ask(asked) as answer:
            told = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]})
            told.enable_chunked_encoding()
            await told.prepare(request)
            try:
                async for line in _lines(answer.content):
                    await told.write(await self.fault.event(asked.resource[0], line))
            except Last as last:
                await told.write(last.told)
            await told.write_eof()
            return told


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    """Whole lines, however long."""
    rest = b""
    async for chunk in content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line + b"\n"
    if rest:
        yield rest
