"""Takes and renews the Lease, and tells when this process starts and stops to lead."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

from distill_operator.controller.leadership.election import NOBODY, Election, Record
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object

LOG = logging.getLogger(__name__)


def clock() -> float:
    """Seconds that also pass while the machine sleeps, unlike those of time.monotonic."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Elector:
    """One contender for the Lease."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        election: Election,
        started: Callable[[], None],
        stopped: Callable[[], Awaitable[None]],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._election = election
        self._started = started
        self._stopped = stopped
        self._leading = False
        self._problem = ""

    def leads(self) -> bool:
        """Whether this process may act now. Safe at any moment, also after the process was stopped for a while."""
        return self._election.seconds_left(clock()) > 0

    async def run(self) -> None:
        """Contend until the task is cancelled."""
        while True:
            await self._round()
            left = self._election.seconds_left(clock())
            await asyncio.sleep(min(self._election.times.retry, left or self._election.times.retry))

    async def release(self) -> None:
        """Leave the Lease to others. Call it after everything has stopped that acts."""
        if not self.leads():
            return
        try:
            async with asyncio.timeout(self._election.times.retry):
                await self._write(self._election.release())
        except (ApiError, OSError) as error:
            LOG.warning("the Lease %s was not released; others wait until it expires: %s", self._name, error)

    async def _round(self) -> None:
        times, began = self._election.times, clock()
        try:
            async with asyncio.timeout(self._election.seconds_left(began) or times.renew):
                await self._try(began)
            self._problem = ""
        except (ApiError, OSError, ValueError) as error:
            problem = str(error) or type(error).__name__
            if problem != self._problem:
                LOG.warning("the Lease %s/%s was not renewed or taken: %s", self._namespace, self._name, problem)
            self._problem = problem
        await self._tell()

    async def _try(self, began: float) -> None:
        if not self.leads():
            self._election.seen(await self._read(), began)
            if not self._election.may_take(began):
                return
        try:
            stored = await self._write(self._election.claim())
        except ApiError as error:
            if error.code not in (404, 409):
                raise
            self._election.seen(await self._read(), began)  # it is another's now, or somebody edited or deleted it
        else:
            self._election.taken(stored, began)

    async def _tell(self) -> None:
        leads = self.leads()
        if leads == self._leading:
            return
        self._leading = leads
        if leads:
            LOG.info("%s leads", self._election.me)
            self._started()
        else:
            LOG.warning("%s does not lead any more", self._election.me)
            await self._stopped()

    async def _read(self) -> Record:
        lease = await self._kube.get("Lease", self._namespace, self._name)
        return _record(lease) if lease is not None else NOBODY

    async def _write(self, record: Record) -> Record:
        metadata: Object = {"name": self._name, "namespace": self._namespace}
        spec: Object = {
            "holderIdentity": record.holder,
            "leaseDurationSeconds": max(1, round(record.seconds)),
            "leaseTransitions": record.transitions,
            "renewTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),  # for people
        }
        lease: Object = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
        if not record.version:
            return _record(await self._kube.create("Lease", self._namespace, lease))
        metadata["resourceVersion"] = record.version
        return _record(await self._kube.replace("Lease", lease))


def _record(lease: Object) -> Record:
    spec = lease.get("spec") or {}
    return Record(
        holder=spec.get("holderIdentity") or "",
        seconds=float(spec.get("leaseDurationSeconds") or 0),
        transitions=spec.get("leaseTransitions") or 0,
        version=lease["metadata"]["resourceVersion"],
    )
