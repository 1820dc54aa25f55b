"""Log lines of several pods in the order of their times."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from queue import Empty, Queue
from threading import Thread
from time import monotonic

from distill_client.apiserver.connection import Connection
from distill_client.apiserver.kinds import path
from distill_client.errors import ClientError

HOLD_SECONDS = 0.4
"""How long a line that is followed waits for earlier lines of other pods."""
_END = object()


@dataclass(frozen=True, order=True)
class LogLine:
    """A line, the pod that wrote it, and when (the clock of the pod's node, as RFC 3339 with nine decimals)."""

    time: str
    pod: str
    text: str


def parse(pod: str, line: str) -> LogLine:
    """A line of a log that was asked for with timestamps; without one, its time is empty."""
    stamp, _, text = line.partition(" ")
    if len(stamp) < 20 or stamp[4:5] != "-" or not stamp.endswith("Z"):
        return LogLine("", pod, line.rstrip("\r"))
    seconds, _, fraction = stamp[:-1].partition(".")
    return LogLine(f"{seconds}.{fraction:0<9}Z", pod, text.rstrip("\r"))


class Merger:
    """Puts lines that arrive from several pods in the order of their times. A line is held until `hold` seconds have
    passed since it came, so that an earlier one of another pod can still go before it.
    """

    def __init__(self, hold: float = HOLD_SECONDS) -> None:
        self._hold = hold
        self._heap: list[tuple[str, int, float, LogLine]] = []
        self._count = 0
        self._newest: dict[str, str] = {}

    def add(self, line: LogLine, now: float) -> None:
        """A line has come. One without a time follows the line of its pod that came before it."""
        stamp = line.time or self._newest.get(line.pod, "")
        self._newest[line.pod] = stamp
        heapq.heappush(self._heap, (stamp, self._count, now, line))
        self._count += 1

    def ready(self, now: float, *, all_of_them: bool = False) -> Iterator[LogLine]:
        """The lines that need not wait any longer, in order."""
        while self._heap and (all_of_them or now - self._heap[0][2] >= self._hold):
            yield heapq.heappop(self._heap)[3]


def merged(lines: Mapping[str, Iterable[LogLine]]) -> Iterator[LogLine]:
    """The lines of finished logs, by pod, in the order of their times."""
    merger = Merger()
    for of_pod in lines.values():
        for line in of_pod:
            merger.add(line, 0.0)
    yield from merger.ready(0.0, all_of_them=True)


def read(connection: Connection, namespace: str, pod: str, container: str, **query: str) -> Iterator[LogLine]:
    """The log of one container, as it comes. `query`: as the API's pods/log. Raises ClientError."""
    asked = {"container": container, "timestamps": "true", **query}
    for line in connection.lines(path("Pod", namespace, pod, "log"), asked):
        yield parse(pod, line)


def follow(sources: Mapping[str, Iterable[LogLine]]) -> Iterator[LogLine]:
    """The lines of several logs that are still written, merged, until all have ended. Raises the first ClientError."""
    queue: Queue[object] = Queue()
    for source in sources.values():
        Thread(target=_pump, args=(source, queue), daemon=True).start()
    merger, open_sources = Merger(), len(sources)
    while open_sources:
        try:
            item = queue.get(timeout=HOLD_SECONDS / 4)
        except Empty:
            item = None
        if item is _END:
            open_sources -= 1
        elif isinstance(item, ClientError):
            raise item
        elif isinstance(item, LogLine):
            merger.add(item, monotonic())
        yield from merger.ready(monotonic())
    yield from merger.ready(0.0, all_of_them=True)


def _pump(source: Iterable[LogLine], queue: Queue[object]) -> None:
    try:
        for line in source:
            queue.put(line)
    except ClientError as error:
        queue.put(error)
    finally:
        queue.put(_END)
