"""The Lease over HTTP: taken, renewed, released and lost, with times a tenth of the real ones."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from distill_operator.controller.leadership.election import Election, Times
from distill_operator.controller.leadership.elector import Elector
from distill_operator.kube.client import Kube, NotLeadingError
from tests.support.operator.fakeapi import FakeApi

TIMES = Times(lease=1.0, renew=0.6, retry=0.1)  # the wire has whole seconds


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi().served() as api:
        yield api


class Process:
    """An operator that does nothing but lead; it notes when it starts and stops to."""

    def __init__(self, kube: Kube, name: str) -> None:
        self.elector = Elector(kube, "system", "operator", Election(name, TIMES), self._started, self._stopped)
        self.kube = kube.guarded(self.elector.leads)
        self.started: list[float] = []
        self.stopped: list[float] = []
        self.task = asyncio.create_task(self.elector.run())

    def _started(self) -> None:
        self.started.append(time.monotonic())

    async def _stopped(self) -> None:
        self.stopped.append(time.monotonic())

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def leads(self, seconds: float = 5.0) -> float:
        """When it leads; waits for that."""
        return await until(lambda: self.elector.leads() and self.started[-1:], seconds)

    async def rests(self, seconds: float = 5.0) -> float:
        return await until(lambda: not self.elector.leads() and self.stopped[-1:], seconds)


async def until(what: Callable[[], list[float] | bool], seconds: float) -> float:
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    return found[0] if isinstance(found, list) else 0.0


@asynccontextmanager
async def processes(api: FakeApi, *names: str) -> AsyncIterator[list[Process]]:
    configuration = Configuration(host=f"http://127.0.0.1:{api.port}")
    configuration.retries = False
    client = ApiClient(configuration)
    started = [Process(Kube(client), name) for name in names]
    try:
        yield started
    finally:
        for process in started:
            await process.kill()
        await client.close()


def test_one_leads_and_another_takes_over_when_it_is_killed(api: FakeApi) -> None:
    async def story() -> float:
        async with processes(api, "a") as (a,):
            await a.leads()
            async with processes(api, "b") as (b,):
                await asyncio.sleep(1.5)
                assert not b.started, "the lease is renewed"
                killed = time.monotonic()
                await a.kill()
                return await b.leads() - killed

    seconds = asyncio.run(story())
    assert TIMES.lease - TIMES.retry - 0.1 < seconds < TIMES.lease + 3 * TIMES.retry + 0.5


def test_a_released_lease_is_taken_within_a_retry(api: FakeApi) -> None:
    async def story() -> float:
        async with processes(api, "a") as (a,):
            await a.leads()
            async with processes(api, "b") as (b,):
                await asyncio.sleep(0.3)
                await a.kill()
                await a.elector.release()
                released = time.monotonic()
                assert not a.elector.leads()
                return await b.leads() - released

    assert asyncio.run(story()) < TIMES.retry + 0.3
    lease = api.get("leases", "system", "operator")["spec"]
    assert (lease["holderIdentity"], lease["leaseTransitions"]) == ("b", 2)


@pytest.mark.parametrize("outage", ["closed", "silent"])
def test_a_leader_without_an_api_server_stops_before_its_lease_ends(api: FakeApi, outage: str) -> None:
    async def story() -> float:
        async with processes(api, "a") as (a,):
            await a.leads()
            await asyncio.sleep(0.3)
            began = time.monotonic()
            api.away, api.held = outage == "closed", {"leases"} if outage == "silent" else set()
            stopped = await a.rests()
            api.away, api.held = False, set()
            await a.leads()
            return stopped - began

    assert asyncio.run(story()) < TIMES.renew + 0.2 < TIMES.lease


def test_a_late_answer_does_not_lengthen_the_time_of_a_leader(api: FakeApi) -> None:
    async def story() -> float:
        async with processes(api, "a") as (a,):
            await a.leads()
            api.answer_after = 0.4
            await asyncio.sleep(1.0)
            version = api.get("leases", "system", "operator")["metadata"]["resourceVersion"]
            await until(lambda: api.get("leases", "system", "operator")["metadata"]["resourceVersion"] != version, 2)
            await asyncio.sleep(0.2)  # the answer to this write is on its way
            renewed = api.written_at["leases"]
            await asyncio.sleep(0.25)
            api.held = {"leases"}
            stopped = await a.rests()
            assert api.written_at["leases"] == renewed, "no later renewal"
            return stopped - renewed

    assert asyncio.run(story()) < TIMES.renew + 0.1


def test_no_request_that_writes_is_sent_without_leading(api: FakeApi) -> None:
    job = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}

    async def story() -> None:
        async with processes(api, "a") as (a,):
            await a.leads()
            await a.kube.create("Pod", "team", job)
            await a.kill()  # as if the event loop stood still
            await asyncio.sleep(TIMES.renew)
            for attempt in (
                a.kube.create("Pod", "team", job),
                a.kube.replace_status("Pod", {"metadata": {"name": "p", "namespace": "team"}}),
                a.kube.delete("Pod", "team", "p", "uid", foreground=False),
            ):
                with pytest.raises(NotLeadingError):
                    await attempt
            assert await a.kube.get("Pod", "team", "p") is not None

    asyncio.run(story())
    assert sum(map(len, api.writes.values())) == 1


def test_a_leader_whose_lease_is_edited_leads_on_but_not_if_it_is_taken(api: FakeApi) -> None:
    async def story() -> None:
        async with processes(api, "a") as (a,):
            await a.leads()
            lease = api.get("leases", "system", "operator")
            api.put("leases", {**lease, "metadata": {**lease["metadata"], "labels": {"by": "hand"}}})
            await asyncio.sleep(1.0)
            assert a.elector.leads()
            assert not a.stopped
            lease = api.get("leases", "system", "operator")
            api.put("leases", {**lease, "spec": {**lease["spec"], "holderIdentity": "b"}})
            await a.rests(seconds=TIMES.renew)
            api.put("leases", api.get("leases", "system", "operator"), "DELETED")
            await a.leads()

    asyncio.run(story())
