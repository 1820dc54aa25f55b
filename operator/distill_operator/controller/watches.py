"""kopf's connection to the API server, and whether the first list of every watched kind has been received.

kopf does not say when a list is complete, but it sends the first watch request of a kind only after it has the whole
list. The requests of its HTTP session show that, also in a cluster without a single object.

kopf ends the operator when a list is no JSON, or when a watch has a line that is none or an error other than 410. All
this passes, so it is turned into what makes kopf list again, as is the end of every watch.
"""

import json
from collections.abc import AsyncIterator, Iterable, Iterator
from itertools import chain, repeat
from types import SimpleNamespace
from typing import Any

import aiohttp
import kopf

from distill_api.constants import API_VERSION, PLURAL

WATCHED = (f"/apis/{API_VERSION}", PLURAL), ("/apis/batch/v1", "jobs"), ("/api/v1", "pods")
"""Prefix and plural of each watched kind."""

GONE = b'{"type":"ERROR","object":{"kind":"Status","code":410}}\n'
"""The event after which a watch begins again with a list."""


class Backoffs:
    """Seconds before each further attempt of a request: without an end, because with the last one kopf gives up."""

    GROWING = (1.0, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0)
    """kopf's own. Its default ends here, so 5xx for a minute would end the operator."""

    def __iter__(self) -> Iterator[float]:
        return chain(self.GROWING, repeat(self.GROWING[-1]))


class Answer(aiohttp.ClientResponse):
    """An answer to kopf."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Read the headers. A watch has its lines checked."""
        await super().start(connection)
        if self.status < 400 and _watches(self.url.query):
            self.content: Any = _Events(self.content)
        return self

    async def json(self, **options: Any) -> Any:
        """The body. Raises ClientPayloadError, after which kopf lists again, for a list that is no JSON object or whose
        next page the API server no longer has.
        """
        if self.status == 410 and not _watches(self.url.query):
            raise aiohttp.ClientPayloadError("the next page of the list has expired")
        if self.status >= 400:
            return await super().json(**options)
        try:
            content = json.loads(await self.read())
        except ValueError:
            content = None
        if not isinstance(content, dict):
            raise aiohttp.ClientPayloadError(f"the answer from {self.url.path} is no JSON object")
        return content


class _Events:
    """The lines of a watch, as kopf reads them."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content = content

    def __getattr__(self, name: str) -> Any:
        """aiohttp asks the stream for its state when the connection is lost."""
        return getattr(self._content, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines up to one that is no event or an error, and then GONE.

        It also follows when all is well: kopf would go on after the last event, and never know of one lost before it.
        """
        rest = b""
        async for chunk in self._content.iter_chunked(size):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                if not _is_event(line):
                    yield GONE
                    return
                yield line + b"\n"
        yield GONE


def _is_event(line: bytes) -> bool:
    """Whether a line can be an event that is no error; what is inside is for kopf to parse, once."""
    line = line.strip()
    whole = line.startswith(b"{") and line.endswith(b"}")
    return not line or (whole and not line.replace(b" ", b"", 1).startswith(b'{"type":"ERROR"'))


def _watches(query: Any) -> bool:
    return bool(query.get("watch") == "true")


class Watches:
    """Which watches have not started yet."""

    def __init__(self, namespaces: Iterable[str]) -> None:
        scopes = [f"/namespaces/{name}" for name in namespaces] or [""]
        self._missing = {f"{prefix}{scope}/{plural}" for prefix, plural in WATCHED for scope in scopes}
        self._made: tuple[kopf.ConnectionInfo, kopf.AiohttpSession] | None = None

    @property
    def missing(self) -> list[str]:
        """Paths of the kinds whose first list has not been received."""
        return sorted(self._missing)

    def session(self, info: kopf.ConnectionInfo) -> kopf.AiohttpSession:
        """The session that kopf would make for this connection, observed.

        The same credentials get the same session, so that kopf recognizes those that the API server has refused.
        """
        if self._made is not None and self._made[0] == info:
            return self._made[1]
        trace = aiohttp.TraceConfig()
        trace.on_request_start.append(self._requested)
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=info.as_ssl_context()),
            headers=info.as_http_headers(),
            proxy=info.proxy_url,
            trust_env=info.trust_env,
            trace_configs=[trace],
            response_class=Answer,
        )
        made = kopf.AiohttpSession(
            aiohttp_session=session,
            server=info.server,
            default_namespace=info.default_namespace,
            priority=info.priority,
            expiration=info.expiration,
        )
        self._made = (info, made)
        return made

    async def _requested(
        self, _session: aiohttp.ClientSession, _context: SimpleNamespace, request: aiohttp.TraceRequestStartParams
    ) -> None:
        if _watches(request.url.query):
            self._missing = {path for path in self._missing if not request.url.path.endswith(path)}
