"""The faults: a crash of the operator at one of its writes, and wrong answers at random."""

import asyncio
import json
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

from benchmarks.faultapi.proxy import Answer, Asked, Forward, Last, Lost, Undisturbed

HANG_SECONDS = 60.0
"""Longer than the operator waits for an answer."""
IN_A_ROW, CALM = 3, 20
"""After some faults so many requests and events are passed on: a pass must succeed before back-offs become minutes."""
HTML = b"<html><head><title>Sign in</title></head><body>This network needs a login.</body></html>"


class Crash(Undisturbed):
    """Kills the operator at one write: just before it reaches the API server, or just after that has answered."""

    def __init__(self, write: str, number: int, *, after: bool, kill: Callable[[], None]) -> None:
        """`write`: in words, as Asked.what; `number`: which of those with these words, from 1."""
        self._write, self._number, self._after, self._kill = write, number, after, kill
        self._count = 0
        self.done = False

    async def answer(self, asked: Asked, forward: Forward) -> Answer:
        """Kill the operator if this is the write."""
        if asked.writes and asked.what == self._write:
            self._count += 1
            if self._count == self._number:
                if self._after:
                    await forward(asked)
                self.done = True  # before, because this task ends with the operator's connection
                await asyncio.to_thread(self._kill)
                raise Lost
        return await forward(asked)


def status_error(code: int, reason: str, **headers: str) -> Answer:
    """An error as the API server answers it."""
    message = f"disturbed: {reason}"
    body = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "message": message}
    return Answer(code, json.dumps({**body, "code": code}).encode(), {"Content-Type": "application/json", **headers})


ERRORS = {
    "409 on a status": status_error(409, "Conflict"),
    "429 with Retry-After": status_error(429, "TooManyRequests", **{"Retry-After": "1"}),
    "500": status_error(500, "InternalError"),
    "503": status_error(503, "ServiceUnavailable"),
    "502 in plain text": Answer(502, b"bad gateway\n", {"Content-Type": "text/plain"}),
}
"""Answers without the request having been performed."""
SPOILED = ("answer lost", "HTML with 200", "truncated JSON", "connection cut in the body")
"""The request is performed, and its answer does not arrive whole."""
HANGS = ("request hangs", "answer hangs")
WATCH = ("event delayed", "event dropped", "watch closed with 410", "watch broken", "half an event", "error event")
KINDS = (*ERRORS, "request lost", *SPOILED, *HANGS, "stale answer", *WATCH)


class Outage(Undisturbed):
    """A load balancer without an API server behind it."""

    async def opens(self) -> Answer | None:
        """No watch."""
        return ERRORS["503"]

    async def answer(self, asked: Asked, forward: Forward) -> Answer:  # noqa: ARG002
        """503."""
        return ERRORS["503"]

    async def event(self, watch: str, line: bytes) -> bytes:  # noqa: ARG002
        """The watches that were open end at their next event."""
        raise Lost


class Chaos(Undisturbed):
    """Wrong answers and events, drawn at random from some kinds of faults."""

    def __init__(self, seed: int, kinds: tuple[str, ...] = KINDS, rate: float = 0.15, *, once: bool = False) -> None:
        """`rate`: share of requests and events that are disturbed. Kinds that hang come once, with `once` all do."""
        self._random = random.Random(seed)
        self._kinds, self._rate, self._single = kinds, rate, kinds if once else HANGS
        self._earlier: defaultdict[str, list[Answer]] = defaultdict(list)
        self._calm = 0
        self._lossy: set[str] = set()
        """Watches that have lost an event: they end with the next one, as all do after ten minutes."""
        self.done: Counter[str] = Counter()

    def _draw(self, possible: tuple[str, ...]) -> str | None:
        if self._calm > 0:
            self._calm -= 1
            return None
        left = [k for k in possible if k in self._kinds and not (k in self._single and self.done[k])]
        if not left or self._random.random() >= self._rate:
            return None
        kind = self._random.choice(left)
        self.done[kind] += 1
        if self.done.total() % IN_A_ROW == 0:
            self._calm = CALM
        return kind

    async def answer(self, asked: Asked, forward: Forward) -> Answer:
        """The answer, perhaps disturbed."""
        kind = self._draw(self._possible(asked))
        if kind in ERRORS:
            return ERRORS[kind]
        if kind == "stale answer":
            return self._random.choice(self._earlier[asked.target])
        if kind == "request lost":
            raise Lost
        if kind == "request hangs":
            await asyncio.sleep(HANG_SECONDS)
            raise Lost
        answer = await forward(asked)
        if not asked.writes and answer.status == 200:
            self._earlier[asked.target].append(answer)
        return await self._spoiled(kind, answer) if kind is not None else answer

    def _possible(self, asked: Asked) -> tuple[str, ...]:
        kinds = [kind for kind in (*ERRORS, "request lost", *SPOILED, *HANGS) if kind != "409 on a status"]
        if asked.resource[2] and asked.writes:
            kinds.append("409 on a status")
        if self._earlier.get(asked.target) and not asked.writes:
            kinds.append("stale answer")
        return tuple(kinds)

    async def _spoiled(self, kind: str, answer: Answer) -> Answer:
        if kind == "HTML with 200":
            return Answer(200, HTML, {"Content-Type": "text/html"})
        cut = answer.body[: len(answer.body) // 2]
        if kind == "truncated JSON":
            return answer.with_body(cut)
        if kind == "connection cut in the body":
            return Answer(answer.status, cut, answer.headers, cut=True)
        if kind == "answer hangs":
            await asyncio.sleep(HANG_SECONDS)
        raise Lost

    async def event(self, watch: str, line: bytes) -> bytes:
        """The event, perhaps disturbed."""
        if watch in self._lossy:
            self._lossy.discard(watch)
            raise Last(line)
        kind = self._draw(WATCH)
        if kind == "event dropped":
            self._lossy.add(watch)
            return b""
        if kind == "event delayed":
            await asyncio.sleep(self._random.uniform(0.5, 4))
        elif kind == "watch closed with 410":
            raise Last(error_event(410, "Expired"))
        elif kind == "watch broken":
            raise Lost
        elif kind == "half an event":
            raise Last(line[: len(line) // 2])
        elif kind == "error event":
            raise Last(error_event(500, "InternalError"))
        return line


def error_event(code: int, reason: str) -> bytes:
    """An event with which the API server ends a watch, such as 410 for a version that it no longer has."""
    status: dict[str, Any] = json.loads(status_error(code, reason).body)
    return json.dumps({"type": "ERROR", "object": status}, separators=(",", ":")).encode() + b"\n"
