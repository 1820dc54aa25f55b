"""The operator's clock is the API server's, whatever its own machine's says."""

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from aiohttp import web

from distill_operator.kube.client import Kube
from distill_operator.kube.clock import ServerClock
from tests.operator.kube.test_client import asked

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)


class Machine:
    """A machine whose clock has nothing to do with the API server's."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def header(seconds: float) -> str:
    return format_datetime(datetime.fromtimestamp(int(START.timestamp() + seconds), UTC), usegmt=True)


def after_start(clock: ServerClock) -> float:
    return (clock.now() - START).total_seconds()


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.9])
def test_it_tells_the_servers_second_and_goes_on_between_answers(fraction: float) -> None:
    machine = Machine()
    clock = ServerClock(machine)
    for _ in range(40):  # answers at all parts of a second
        sent = machine.seconds
        machine.seconds += 0.01
        clock.saw(header(machine.seconds - 1000.0 + fraction), sent)
        machine.seconds += 0.07
    machine.seconds += 3600
    assert abs(after_start(clock) - (machine.seconds - 1000.0 + fraction)) <= 1.1


def test_it_follows_a_server_whose_clock_is_set() -> None:
    machine = Machine()
    clock = ServerClock(machine)
    for jump in (0, 300, -300):
        sent = machine.seconds
        machine.seconds += 0.2
        clock.saw(header(machine.seconds - 1000.0 + jump), sent)
        assert abs(after_start(clock) - (machine.seconds - 1000.0 + jump)) <= 1.3


@pytest.mark.parametrize("date", [None, "", "yesterday", "Mon, 99 Nov 2026 12:00:00 GMT"])
def test_an_answer_without_a_good_date_changes_nothing(date: str | None) -> None:
    machine = Machine()
    clock = ServerClock(machine)
    clock.saw(header(5), machine.seconds)
    before = clock.now()
    clock.saw(date, machine.seconds)
    assert clock.now() == before


def test_before_the_first_answer_it_is_this_machines() -> None:
    assert abs((ServerClock().now() - datetime.now(UTC)).total_seconds()) <= 2


def test_every_answer_sets_the_clients_clock() -> None:
    async def handler(_: web.Request) -> web.Response:
        return web.json_response({}, headers={"Date": header(7)})

    async def story(kube: Kube) -> datetime:
        await kube.get("Pod", "team", "x")
        return kube.clock.now()

    assert (asked(handler, story) - START).total_seconds() in (7, 8)
