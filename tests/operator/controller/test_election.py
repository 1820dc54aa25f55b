"""Which of two operators leads: the decision alone, with clocks that a test moves and an API server that misbehaves."""

import random
from dataclasses import dataclass, field, replace

import pytest

from distill_operator.controller.leadership.election import NOBODY, Election, Record, Times

TIMES = Times()
CUT_EVERY = 1 / (20 * 30)
"""Chance per step that a contender is cut off for a while: twenty steps are a second."""


@dataclass
class Server:
    """Holds the Lease; a write needs the version that is stored."""

    record: Record = NOBODY
    version: int = 0

    def write(self, record: Record) -> Record | None:
        if record.version != self.record.version:
            return None
        self.version += 1
        self.record = replace(record, version=str(self.version))
        return self.record


@dataclass
class Contender:
    """Makes rounds as the elector does; its clock has another origin and another rate than the true time."""

    name: str
    origin: float
    rate: float
    election: Election = field(init=False)
    next_round: float = 0.0
    cut_until: float = 0.0
    on_the_way: tuple[float, float, Record] | None = None
    """A write: when it arrives, when it was asked for by the own clock, and what it says."""
    answer: tuple[float, float, Record] | None = None

    def __post_init__(self) -> None:
        self.election = Election(self.name, TIMES)

    def clock(self, now: float) -> float:
        return self.origin + now * self.rate

    def leads(self, now: float) -> bool:
        return self.election.seconds_left(self.clock(now)) > 0

    def step(self, server: Server, now: float, chance: random.Random) -> None:
        cut_off = now < self.cut_until
        if not cut_off and chance.random() < CUT_EVERY:
            self.cut_until = now + 40 * chance.random()
        if self.on_the_way is not None and self.on_the_way[0] <= now:
            _, asked, record = self.on_the_way
            self.on_the_way = None
            stored = server.write(record)
            if stored is not None and not cut_off:
                self.answer = (now + chance.random(), asked, stored)
        if self.answer is not None and self.answer[0] <= now:
            _, asked, stored = self.answer
            self.answer = None
            self.election.taken(stored, asked)
        if cut_off or now < self.next_round or self.on_the_way is not None or self.answer is not None:
            return
        self.next_round = now + TIMES.retry
        mine = self.clock(now)
        if not self.leads(now) or chance.random() < 0.3:
            self.election.seen(server.record, mine)
        if self.leads(now) or self.election.may_take(mine):
            self.on_the_way = (now + chance.random(), mine, self.election.claim())


@pytest.mark.parametrize("seed", range(40))
def test_two_never_lead_whatever_is_lost_or_late(seed: int) -> None:
    chance, server = random.Random(seed), Server()
    both = [Contender("a", 0.0, 1.05), Contender("b", 5000.0, 0.95)]
    led = []
    for tick in range(40_000):
        now = tick / 20
        for contender in both:
            contender.step(server, now, chance)
        leaders = [contender.name for contender in both if contender.leads(now)]
        assert len(leaders) <= 1, f"both lead at {now} s"
        led += [name for name in leaders if led[-1:] != [name]]
    assert len(led) > 5, "the lease goes to and fro"


def led(me: str = "a", now: float = 0.0) -> Election:
    """A leader since `now`."""
    election = Election(me, TIMES)
    election.seen(NOBODY, now)
    election.taken(replace(election.claim(), version="1"), now)
    return election


def test_a_leader_stops_before_anybody_else_may_take_the_lease() -> None:
    leader, other = led(), Election("b", TIMES)
    other.seen(leader.record, 0.1)
    assert leader.seconds_left(9.9) > 0
    assert leader.seconds_left(10.0) == 0
    assert not other.may_take(15.0)
    assert other.may_take(15.2)


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    leader = led()
    leader.taken(replace(leader.claim(), version="2"), asked_at=4.0)  # the answer came later, whenever that was
    assert leader.seconds_left(5.0) == 9.0


def test_every_renewal_starts_the_wait_of_the_others_anew() -> None:
    other = Election("b", TIMES)
    for version in range(20):
        other.seen(Record("a", 15.0, 0, str(version)), version * 2.0)
        assert not other.may_take(version * 2.0 + 14.9)


def test_a_released_lease_is_taken_at_once_and_counted() -> None:
    leader, other = led(), Election("b", TIMES)
    released = leader.release()
    assert leader.seconds_left(0.0) == 0
    other.seen(replace(released, version="2"), 0.5)
    assert other.may_take(0.5)
    assert other.claim() == Record("b", 15.0, 2, "2")


def test_a_container_that_is_restarted_leads_again_at_once() -> None:
    again = Election("a", TIMES)
    again.seen(Record("a", 15.0, 1, "7"), 100.0)
    assert again.may_take(100.0)
    assert again.claim().transitions == 1


def test_a_leader_that_reads_another_holder_stops_at_once() -> None:
    leader = led()
    leader.seen(Record("b", 15.0, 2, "9"), 1.0)
    assert leader.seconds_left(1.0) == 0
