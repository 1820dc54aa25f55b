"""The running operator: starts and stops its parts together, and passes watch events to them."""

import asyncio
import logging
import time
from functools import partial

import aiohttp

from distill_api.constants import GROUP, PLURAL
from distill_api.generate.crd import schema_hash
from distill_operator.controller.leadership.election import Election, Times
from distill_operator.controller.leadership.elector import Elector
from distill_operator.controller.rank0 import client
from distill_operator.controller.rank0.poller import Poller
from distill_operator.controller.reconcile import Reconciler
from distill_operator.controller.sweep import sweep
from distill_operator.controller.telemetry.health import Health
from distill_operator.controller.telemetry.http import HttpServer
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.controller.watches import Watches
from distill_operator.controller.workqueue import WorkQueue
from distill_operator.kube.client import Kube
from distill_operator.kube.crd import ClusterCrd
from distill_operator.kube.objects import Object, is_placeholder, job_of_child
from distill_operator.kube.observe import Observer
from distill_operator.kube.pod_cache import Key, PodCache
from distill_operator.types.settings import Settings

LOG = logging.getLogger(__name__)

STANDBY_KEEPS_SECONDS = 60.0
"""How long an operator that does not lead keeps the last state of a pod that is gone: longer than a fail-over takes."""


class MissingCrdError(Exception):
    """The CRD of DistillJobs is not installed."""


class Operator:
    """Turns watch events into passes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pod_cache = PodCache()
        self._metrics = Metrics()
        self._health = Health()
        self.watches = Watches(settings.namespaces)
        self._http_server = HttpServer(self._metrics.registry, self._unhealthy, self._unready)
        self._kube: Kube | None = None
        self._http: aiohttp.ClientSession | None = None
        self._observer: Observer | None = None
        self._poller: Poller | None = None
        self._workqueue: WorkQueue | None = None
        self._sweep: asyncio.Task[None] | None = None
        self._elector: Elector | None = None
        self._electing: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect and listen.

        Raises OSError if a port is in use, ConfigException without a cluster, and MissingCrdError without the CRD: a
        watch that starts before the CRD exists would never report a job.
        """
        settings = self._settings
        self._kube = await Kube.connect()
        if not await self._kube.serves_distilljobs():
            raise MissingCrdError(f"{PLURAL}.{GROUP} is not installed; apply the chart's CRD first")
        await self._compare_crd(self._kube)
        self._http = client.session()
        kube, now = self._kube.guarded(self._leads), self._kube.clock.now
        self._observer = Observer(kube, self._pod_cache, settings.resync, now)
        self._poller = Poller(partial(client.ask, self._http), self._asked, settings.poll, self._metrics.polled)
        self._metrics.silent_jobs(self._poller.silent_jobs)
        reconciler = Reconciler(kube, self._observer, settings, self._metrics, self._poller, now)
        self._workqueue = WorkQueue(reconciler.reconcile, settings.workers, self._pass_ended, paused=True)
        self._sweep = asyncio.create_task(sweep(kube, self._metrics.jobs, self._wake))
        await self._http_server.start(settings.health_port, settings.metrics_port)
        if settings.lease_name:
            election = Election(settings.identity, Times())
            where = (settings.lease_namespace, settings.lease_name)
            self._elector = Elector(self._kube, *where, election, self._lead, self._stand_by)
            self._electing = asyncio.create_task(self._elector.run(), name="leader election")
        else:
            self._lead()

    async def _compare_crd(self, kube: Kube) -> None:
        """Say whether the CRD is of another version. Both work together, so this stops nothing."""
        matches = await ClusterCrd(kube).matches()
        if matches is not None:
            self._metrics.crd_matches(matches)
        if matches is False:
            LOG.warning(
                "the CRD in the cluster has another schema than this operator's (%s); upgrade both to one version: "
                "an older CRD drops status fields, and jobs may use fields of a newer CRD that this operator lacks",
                schema_hash(),
            )

    async def stop(self) -> None:
        """Stop the passes, leave the Lease to others, and close the connections."""
        for task in (self._sweep, self._electing):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        if self._workqueue is not None:
            await self._workqueue.pause()
        if self._poller is not None:
            await self._poller.stop()
        if self._elector is not None:
            await self._elector.release()
        await self._http_server.stop()
        if self._http is not None:
            await self._http.close()
        if self._kube is not None:
            await self._kube.close()

    def job_changed(self, job: Object) -> None:
        """A DistillJob was created, changed or deleted. The operator's own writes are ignored."""
        metadata = job["metadata"]
        key = (metadata["namespace"], metadata["name"])
        if self._observer is not None and not self._observer.knows(key, metadata["resourceVersion"]):
            self._wake(key)

    def child_changed(self, child: Object) -> None:
        """A Job of an attempt was created, changed or deleted."""
        if (key := _key_of_child(child)) is not None:
            self._wake(key)

    def pod_changed(self, pod: Object, *, deleted: bool) -> None:
        """A pod was created, changed or deleted. The state of training pods is kept, because they may be gone soon."""
        key = _key_of_child(pod)
        if key is None:
            return
        if not is_placeholder(pod):
            self._pod_cache.note(key, pod, deleted=deleted)
            if deleted and not self._leads():  # no pass will drop it
                uid = pod["metadata"]["uid"]
                asyncio.get_running_loop().call_later(STANDBY_KEEPS_SECONDS, self._drop_on_standby, key, uid)
        self._wake(key)

    def _asked(self, key: Key) -> None:
        if self._workqueue is not None:
            self._workqueue.wake(key, fresh=False)

    def _wake(self, key: Key) -> None:
        if self._workqueue is not None:
            self._workqueue.wake(key)

    # --- leading

    def _leads(self) -> bool:
        return self._elector is None or self._elector.leads()

    def _lead(self) -> None:
        self._metrics.leads(True)
        if self._workqueue is not None:
            self._workqueue.resume()

    async def _stand_by(self) -> None:
        if self._workqueue is not None:
            await self._workqueue.pause()
        if self._poller is not None:
            await self._poller.stop()
        self._metrics.leads(False)
        self._health.idle()

    def _drop_on_standby(self, key: Key, uid: str) -> None:
        if not self._leads():
            self._pod_cache.keep_only(key, self._pod_cache.of(key).keys() - {uid})

    # --- probes

    def _pass_ended(self, error: BaseException | None) -> None:
        self._health.ended(error, time.monotonic())
        if error is not None:
            self._metrics.failed()

    def _unhealthy(self) -> str | None:
        if self._electing is not None and self._electing.done():
            return "the leader election has ended"
        return self._health.problem(self._workqueue.oldest_seconds() if self._workqueue is not None else 0.0)

    def _unready(self) -> str | None:
        if self._workqueue is None:
            return "starting"
        missing = ", ".join(self.watches.missing)
        return f"waiting for the first lists of {missing}" if missing else None


def _key_of_child(child: Object) -> Key | None:
    """The DistillJob of a Job or pod; None for a stranger's that only has the label."""
    name = job_of_child(child)
    return (child["metadata"]["namespace"], name) if name is not None else None
