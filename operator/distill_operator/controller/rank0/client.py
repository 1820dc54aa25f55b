"""Asks a rank 0 for its status. What it answers is not trusted: a training pod runs the user's image."""

from dataclasses import dataclass

import aiohttp
from pydantic import ValidationError

from distill_api.pod.report import TrainerStatus
from distill_operator.types import naming

MAX_BYTES = 64 * 1024
"""Longest answer that is read; a status has a few hundred bytes."""
TIMEOUT_SECONDS = 2.0
"""Rank 0 answers from memory."""
_HEADERS = {"Accept": "application/json", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Target:
    """A rank 0 to ask. Answers of another job or attempt, which may have got the same address, do not count."""

    ip: str
    uid: str
    """UID of the DistillJob."""
    attempt: int


class NoAnswerError(Exception):
    """Rank 0 gave no good answer; the text says why."""


def session() -> aiohttp.ClientSession:
    """A session for `ask`: it keeps no cookies and decompresses nothing."""
    return aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)


async def ask(http: aiohttp.ClientSession, target: Target) -> TrainerStatus:
    """Rank 0's status. Raises NoAnswerError. Takes at most TIMEOUT_SECONDS and reads at most MAX_BYTES."""
    try:
        status = TrainerStatus.model_validate_json(await _body(http, naming.status_url(target.ip)))
    except TimeoutError:
        raise NoAnswerError("timed out") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswerError(_reason(error)) from None
    if status.uid != target.uid or status.attempt != target.attempt:
        raise NoAnswerError("another job or attempt answers at this address")
    return status


async def _body(http: aiohttp.ClientSession, url: str) -> bytes:
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    async with http.get(url, timeout=timeout, allow_redirects=False, headers=_HEADERS) as answer:
        if answer.status != 200:
            raise NoAnswerError(f"HTTP status {answer.status}")
        if answer.headers.get("Content-Encoding", "identity") != "identity":
            raise NoAnswerError("the answer is compressed")
        body = bytearray()
        async for part in answer.content.iter_any():
            body += part
            if len(body) > MAX_BYTES:
                raise NoAnswerError(f"the answer is longer than {MAX_BYTES // 1024} KiB")
        return bytes(body)


def _reason(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        return f"not a trainer's status: {place + ': ' if place else ''}{first['msg']}"[:200]
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection: {error.strerror}"
    return f"{type(error).__name__}: {error}"[:200]
