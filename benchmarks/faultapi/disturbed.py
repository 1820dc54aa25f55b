"""Lives that are disturbed, and whether they end as the undisturbed one."""

import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.faultapi.faults import KINDS, SPOILED, Chaos, Crash, Outage
from benchmarks.faultapi.life import End, live
from benchmarks.faultapi.proxy import Undisturbed
from benchmarks.faultapi.testbed import Lane
from testcluster import ControlPlane

LIFE_SECONDS = 7
PAUSE_SECONDS = 20.0
OUTAGE_SECONDS = 70.0
SERVER = ("kube-apiserver restarted", "etcd paused for 20 s", "503 for 70 s")


@dataclass(frozen=True)
class Row:
    """One line of the results."""

    part: str
    name: str
    problems: tuple[str, ...]
    seconds: float
    faults: Counter[str]
    """What was done, and how often."""


Disturb = Callable[[Lane], Callable[[], Counter[str]]]
"""Prepares a disturbance of the lane; the result tells afterwards what was done."""


@dataclass(frozen=True)
class Story:
    """A life with its disturbance."""

    part: str
    name: str
    disturb: Disturb


def undisturbed(lane: Lane) -> tuple[End, list[str]]:
    """The end to compare with, and the operator's writes in words. RuntimeError if this life has problems itself."""
    lane.begin()
    end = live(lane)
    problems = end.problems + lane.errors()
    if problems:
        raise RuntimeError(f"the undisturbed life has problems: {problems}")
    return end, list(lane.proxy.writes)


def run(lane: Lane, story: Story, expected: End) -> Row:
    """Live one story."""
    began = time.monotonic()
    lane.begin()
    done = story.disturb(lane)
    problems = live(lane).differences(expected)
    faults = done()
    problems += [f"logged {error}" for error in lane.errors()]
    if lane.exits:
        problems.append(f"the operator ended by itself {lane.exits} times")
    return Row(story.part, story.name, tuple(problems), time.monotonic() - began, faults)


def run_all(lanes: Sequence[Lane], stories: Iterable[Story], expected: End, say: Callable[[Row], None]) -> list[Row]:
    """Live the stories, each lane one at a time."""
    waiting: queue.SimpleQueue[Story] = queue.SimpleQueue()
    for story in stories:
        waiting.put(story)
    rows: list[Row] = []

    def work(lane: Lane) -> None:
        while True:
            try:
                story = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                rows.append(run(lane, story, expected))
            except Exception as error:  # noqa: BLE001 (the other stories go on)
                rows.append(Row(story.part, story.name, (f"not judged: {error!r}",), 0.0, Counter()))
            say(rows[-1])

    threads = [threading.Thread(target=work, args=(lane,), daemon=True) for lane in lanes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return rows


# --- crash points


def crashes(writes: list[str]) -> list[Story]:
    """Two for each write of the undisturbed life."""
    stories, seen = [], Counter[str]()
    for write in writes:
        seen[write] += 1
        for after in (False, True):
            when = "after" if after else "before"
            name = f"{when} {write}" + (f" ({seen[write]}.)" if writes.count(write) > 1 else "")
            stories.append(Story("crashes", name, partial(_crash, write, seen[write], after)))
    return stories


def _crash(write: str, number: int, after: bool, lane: Lane) -> Callable[[], Counter[str]]:
    fault = Crash(write, number, after=after, kill=lane.kill)
    lane.proxy.fault = fault
    return lambda: Counter({"killed": int(fault.done)})


# --- answers


def answers(seed: int, lives: int) -> list[Story]:
    """Lives with all kinds of faults, at random."""
    return [
        Story("answers", f"all kinds, seed {seed + number}", partial(chaos, seed + number, KINDS))
        for number in range(lives)
    ]


def each_kind(seed: int) -> list[Story]:
    """A life with each kind of faults; those that spoil an answer also meet the lists after a watch was closed."""
    closed = "watch closed with 410"
    pairs = [(kind, closed) for kind in (*SPOILED, "500")]
    return [
        Story("answers", " and ".join(kinds), partial(chaos, seed, kinds, rate=0.25))
        for kinds in [*((kind,) for kind in KINDS), *pairs]
    ]


def chaos(
    seed: int, kinds: tuple[str, ...], lane: Lane, *, rate: float = 0.15, once: bool = False
) -> Callable[[], Counter[str]]:
    """Disturb the lane at random, as Chaos."""
    fault = Chaos(seed, kinds, rate, once=once)
    lane.proxy.fault = fault
    return lambda: Counter(fault.done)


# --- the server


def _elsewhere(what: str, _: Lane) -> Callable[[], Counter[str]]:
    """The disturbance is not the lane's."""
    return lambda: Counter([what])


def server(
    plane: ControlPlane, lanes: Sequence[Lane], seed: int, times: int, expected: End, say: Callable[[Row], None]
) -> list[Row]:
    """In every lane a life, and in its midst the API server is restarted, etcd paused, or a load balancer answers 503;
    so many times each.

    Call it from the thread that started the control plane.
    """
    draw, rows = random.Random(seed), []
    for number, what in ((number, what) for number in range(times) for what in SERVER):
        after = draw.uniform(0.5, LIFE_SECONDS)
        name = f"{what} after {after:.1f} s, {number + 1}."
        lives = [Story("server", name, partial(_elsewhere, what)) for _ in lanes]
        thread = threading.Thread(
            target=lambda lives=lives: rows.extend(run_all(lanes, lives, expected, say)), daemon=True
        )
        for lane in lanes:
            lane.begin()
        thread.start()
        time.sleep(after)
        if what == SERVER[0]:
            plane.restart_api_server()
        elif what == SERVER[1]:
            with plane.paused("etcd"):
                time.sleep(PAUSE_SECONDS)
        else:
            for lane in lanes:
                lane.proxy.fault = Outage()
            time.sleep(OUTAGE_SECONDS)
            for lane in lanes:
                lane.proxy.fault = Undisturbed()
        thread.join()
    return rows
