"""Answers of the API server, and of what may stand before it: proxies answer with text, too. The status comes first."""

import json
from typing import Final

import aiohttp

from distill_operator.kube.objects import Object

NO_ANSWER: Final = 0
"""Code of an ApiError for a request without a usable answer. It is not known whether the request took effect."""
TOO_MANY_REQUESTS: Final = 429

MAX_BODY: Final = 64 * 2**20
"""Bytes of an answer that are read. The largest is the list of a job's pods: 1000 pods have about 20 MiB."""
MAX_ERROR_BODY: Final = 64 * 2**10
"""Bytes that are read of the body of an error."""
MAX_MESSAGE: Final = 4096
"""Characters of an error's message that are kept."""


class ApiError(Exception):
    """A request failed: the API server refused it, or did not answer (code NO_ANSWER)."""

    def __init__(self, code: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{code} {reason}: {message}")
        self.code = code
        self.reason = reason
        """The reason of a Kubernetes Status, such as AlreadyExists; empty if the body was none."""
        self.message = message
        self.retry_after = retry_after
        """Seconds for which the API server asks not to be asked again; None if it does not."""

    @property
    def pushes_back(self) -> bool:
        """Whether the API server does not answer, or asks for fewer requests."""
        return self.code in (NO_ANSWER, TOO_MANY_REQUESTS) or self.retry_after is not None


def unanswered(reason: str, message: str) -> ApiError:
    """The error of a request without a usable answer."""
    return ApiError(NO_ANSWER, reason, message[:MAX_MESSAGE])


async def read(response: aiohttp.ClientResponse) -> Object:
    """The object in an answer.

    Raises ApiError for an error's status and for a body that is no JSON object, and aiohttp's errors and TimeoutError
    if the connection breaks.
    """
    failed = response.status >= 400
    body, whole = await _body(response, MAX_ERROR_BODY if failed else MAX_BODY)
    content = _json_object(body) if whole else None
    if failed:
        raise _error(response, content, body)
    if content is None:
        size = "" if whole else f"more than {MAX_BODY} bytes, "
        raise unanswered("Unreadable", f"the answer is {size}no JSON object: {_text(body)}")
    return content


async def _body(response: aiohttp.ClientResponse, limit: int) -> tuple[bytes, bool]:
    """The body, and whether this is all of it; of a longer one the first `limit` bytes."""
    chunks, size = [], 0
    async for chunk in response.content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size > limit:
            response.close()
            return b"".join(chunks)[:limit], False
    return b"".join(chunks), True


def _json_object(body: bytes) -> Object | None:
    try:
        content = json.loads(body or b"{}")
    except (ValueError, RecursionError):  # no JSON, no UTF-8, or a bomb
        return None
    return content if isinstance(content, dict) else None


def _error(response: aiohttp.ClientResponse, content: Object | None, body: bytes) -> ApiError:
    """The error in a Kubernetes Status, or else in plain text."""
    status = content or {}
    reason, message = status.get("reason"), status.get("message")
    return ApiError(
        response.status,
        reason if isinstance(reason, str) else "",
        (message if isinstance(message, str) and message else _text(body) or response.reason or "")[:MAX_MESSAGE],
        _retry_after(response),
    )


def _text(body: bytes) -> str:
    """The beginning of a text body on one line."""
    return " ".join(body[: 4 * MAX_MESSAGE].decode(errors="replace").split())[:MAX_MESSAGE]


def _retry_after(response: aiohttp.ClientResponse) -> float | None:
    """Retry-After in seconds, which the API server sends with 429 and with errors of its own that will pass."""
    text = response.headers.get("Retry-After", "")
    asked = text.isascii() and text.isdigit() and len(text) < 10
    return float(text) if asked and (response.status == TOO_MANY_REQUESTS or response.status >= 500) else None
