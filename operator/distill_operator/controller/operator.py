"""The running operator: starts and stops its parts together, and passes watch events to them."""

import aiohttp

from distill_api.constants import GROUP, PLURAL, Label
from distill_operator.controller.http import HttpServer
from distill_operator.controller.metrics import Metrics
from distill_operator.controller.reconcile import Reconciler
from distill_operator.controller.workqueue import WorkQueue
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object, is_placeholder
from distill_operator.kube.observe import Observer
from distill_operator.kube.pod_cache import Key, PodCache
from distill_operator.types.settings import Settings


class MissingCrdError(Exception):
    """The CRD of DistillJobs is not installed."""


class Operator:
    """Turns watch events into passes."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pod_cache = PodCache()
        self._metrics = Metrics()
        self._http_server = HttpServer(self._metrics.registry, self._oldest_pass, self._is_ready)
        self._kube: Kube | None = None
        self._http: aiohttp.ClientSession | None = None
        self._observer: Observer | None = None
        self._workqueue: WorkQueue | None = None

    async def start(self) -> None:
        """Connect and listen.

        Raises OSError if a port is in use, ConfigException without a cluster, and MissingCrdError without the CRD: a
        watch that starts before the CRD exists would never report a job.
        """
        settings = self._settings
        self._kube = await Kube.connect()
        if not await self._kube.serves_distilljobs():
            raise MissingCrdError(f"{PLURAL}.{GROUP} is not installed; apply the chart's CRD first")
        self._http = aiohttp.ClientSession()
        self._observer = Observer(self._kube, self._pod_cache, self._http, settings.resync)
        reconciler = Reconciler(self._kube, self._observer, settings, self._metrics)
        self._workqueue = WorkQueue(reconciler.reconcile, settings.workers, self._metrics.failed)
        await self._http_server.start(settings.health_port, settings.metrics_port)

    async def stop(self) -> None:
        """Stop the passes and close the connections."""
        if self._workqueue is not None:
            await self._workqueue.stop()
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
        self._wake(_key_of_child(child))

    def pod_changed(self, pod: Object, *, deleted: bool) -> None:
        """A pod was created, changed or deleted. The state of training pods is kept, because they may be gone soon."""
        key = _key_of_child(pod)
        if not is_placeholder(pod):
            self._pod_cache.note(key, pod, deleted=deleted)
        self._wake(key)

    def _wake(self, key: Key) -> None:
        if self._workqueue is not None:
            self._workqueue.wake(key)

    def _oldest_pass(self) -> float:
        return self._workqueue.oldest_seconds() if self._workqueue is not None else 0.0

    def _is_ready(self) -> bool:
        return self._workqueue is not None


def _key_of_child(child: Object) -> Key:
    metadata = child["metadata"]
    return (metadata["namespace"], metadata["labels"][Label.JOB])
