"""Who notices, and when, that a rank no longer moves."""

import pytest

from distill_trainer.process.liveness.timeouts import timeouts
from distill_trainer.process.liveness.watchdog import RENDEZVOUS, Stall, Watchdog
from tests.support.machine.clock import Clock


@pytest.mark.parametrize(
    ("stall_timeout", "collective", "watchdog"),
    [(600, 300, 480), (100, 60, 80), (12, 8.4, 9.6), (1, 0.7, 0.8), (7200, 3600, 5760)],
)
def test_a_collective_gives_up_before_the_watchdog_and_the_operator(
    stall_timeout: int, collective: float, watchdog: float
) -> None:
    waits = timeouts(stall_timeout)
    assert (waits.collective, waits.watchdog, waits.operator) == pytest.approx((collective, watchdog, stall_timeout))
    assert waits.collective < waits.watchdog < waits.operator


@pytest.mark.parametrize(
    ("still", "stop_before", "stall"),
    [
        (59, None, None),
        (60, None, Stall("backward", 60, False)),
        (9, 9, None),
        (30, 9, None),
        (30, 10, Stall("backward", 30, True)),
    ],
)
def test_a_stall_is_noticed_after_its_timeout_and_sooner_during_a_stop(
    still: float, stop_before: float | None, stall: Stall | None
) -> None:
    clock, stop = Clock(), False
    watchdog = Watchdog(
        timeout=60, stopping_timeout=10, stop_requested=lambda: stop, on_stall=lambda _: None, clock=clock
    )
    watchdog.beat("backward")
    if stop_before is not None:
        clock.now += still - stop_before
        stop = True
        assert watchdog.check() is None
        clock.now += stop_before
    else:
        clock.now += still
    assert watchdog.check() == stall


def test_a_rank_that_is_asked_to_stop_does_not_wait_for_others_to_come() -> None:
    clock = Clock()
    watchdog = Watchdog(timeout=60, stopping_timeout=10, stop_requested=lambda: True, on_stall=print, clock=clock)
    watchdog.beat(RENDEZVOUS)
    assert watchdog.check() is None
    clock.now += 1
    assert watchdog.check() == Stall(RENDEZVOUS, 1, True)
