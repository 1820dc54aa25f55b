"""Whether the process should be restarted, and whether it is ready."""

import asyncio
import itertools

import aiohttp
import kopf
import pytest

from distill_operator.controller.handlers import configure
from distill_operator.controller.telemetry.health import FAILING_SECONDS, STUCK_SECONDS, Health
from distill_operator.controller.watches import Watches
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import NotLeadingError
from tests.support.operator.fakeapi import FakeApi

OUTAGE = [ApiError(500, "", "etcd is away"), TimeoutError(), aiohttp.ClientError(), OSError(), NotLeadingError()]


def failing(error: Exception, seconds: float, every: float = 60.0) -> Health:
    health, now = Health(), 0.0
    while now <= seconds:
        health.ended(error, now)
        now += every
    return health


def test_passes_that_all_fail_with_the_operators_own_errors_end_it() -> None:
    assert failing(KeyError("x"), FAILING_SECONDS).problem(0) is None
    said = failing(KeyError("x"), FAILING_SECONDS + 60).problem(0)
    assert said is not None
    assert "KeyError: 'x'" in said


def test_one_pass_that_succeeds_shows_that_the_operator_works() -> None:
    health = failing(KeyError("x"), FAILING_SECONDS + 60)
    health.ended(None, FAILING_SECONDS + 61)
    health.ended(KeyError("x"), FAILING_SECONDS + 120)
    assert health.problem(0) is None


@pytest.mark.parametrize("error", OUTAGE, ids=lambda error: type(error).__name__)
def test_an_outage_of_the_api_server_restarts_no_operator(error: Exception) -> None:
    assert failing(error, 10 * FAILING_SECONDS).problem(0) is None


def test_a_pass_that_hangs_ends_the_operator() -> None:
    assert Health().problem(STUCK_SECONDS) is None
    assert Health().problem(STUCK_SECONDS + 1) is not None


def test_an_operator_that_does_not_lead_is_well() -> None:
    health = failing(KeyError("x"), FAILING_SECONDS + 60)
    health.idle()
    assert health.problem(0) is None


def test_the_first_lists_are_complete_when_every_watch_has_begun() -> None:
    async def story(api: FakeApi) -> None:
        watches = Watches(["a", "b"])
        info = kopf.ConnectionInfo(server=f"http://127.0.0.1:{api.port}/prefix", token="x")
        made = watches.session(info)
        assert watches.session(info) is made, "kopf recognizes credentials that were refused"
        paths = watches.missing
        assert len(paths) == 6
        async with made.aiohttp_session as session:
            for path in paths:
                assert path in watches.missing
                (await session.get(f"http://127.0.0.1:{api.port}{path}")).close()
                assert path in watches.missing, "a list alone may still have further pages"
                (await session.get(f"http://127.0.0.1:{api.port}{path}", params={"watch": "true"})).close()
                assert path not in watches.missing

    with FakeApi().served() as api:
        asyncio.run(story(api))


def test_an_operator_of_the_whole_cluster_waits_for_three_lists() -> None:
    assert Watches([]).missing == ["/api/v1/pods", "/apis/batch/v1/jobs", "/apis/distilljob.dev/v1alpha1/distilljobs"]


def test_kopf_asks_an_api_server_that_is_away_for_ever() -> None:
    settings = kopf.OperatorSettings()
    configure(settings)
    for _ in range(2):  # every request begins anew
        waits = list(itertools.islice(settings.networking.error_backoffs, 1000))
        assert len(waits) == 1000
        assert (waits[0], max(waits)) == (1.0, 21.0)
