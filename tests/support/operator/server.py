"""API servers with one DistillJob in them, whose requests are methods: no HTTP, no validation, no controllers."""

# ruff: noqa: ARG002 (the signatures are those of Kube)

import asyncio
from collections.abc import Callable
from typing import Any

from distill_api.constants import KIND
from distill_api.job import DistillJob
from distill_api.pod.report import TrainerStatus
from distill_operator.controller.rank0.client import NoAnswerError, Target
from distill_operator.controller.rank0.poller import Poller
from distill_operator.controller.reconcile import Reconciler
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object
from distill_operator.kube.observe import Observer
from distill_operator.kube.pod_cache import PodCache
from tests.support.operator.samples import SETTINGS, at

KEY = ("team", "tiny")


async def nobody(target: Target) -> TrainerStatus:
    """A rank 0 that does not answer."""
    raise NoAnswerError(target.ip)


class Server(Kube):
    """An API server that holds one DistillJob and the user's claims, and refuses what it is told to refuse."""

    def __init__(self, of: DistillJob, refused: dict[str, Exception]) -> None:
        self.raw: Object = {**of.to_wire(), "status": of.status.to_wire()}
        self.raw["metadata"] |= {"resourceVersion": "1"}
        self.refused = refused
        self.asked: list[str] = []
        self.listed: dict[str, list[Object]] = {}
        self.events: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if kind == KIND:
            return self.raw
        return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        self.asked.append(kind)
        await asyncio.sleep(0)
        self.asked.append(f"{kind} answered")
        return self.listed.get(kind, [])

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        if kind in self.refused:
            raise self.refused[kind]
        if kind == "Event":
            self.events.append(manifest["reason"])
        return manifest

    async def replace_status(self, kind: str, obj: Object) -> Object:
        self.raw = obj
        return obj


class JobServer(Kube):
    """Holds a DistillJob as it is stored, its children and the CRD, and counts what is written."""

    def __init__(self, raw: Object, crd: Object | None = None, prune: Callable[[Object], Object] | None = None) -> None:
        self.raw = raw
        self.raw["metadata"]["resourceVersion"] = "1"
        self.crd = crd
        self.prune = prune or (lambda obj: obj)
        self.listed: dict[str, list[Object]] = {}
        self.made: list[str] = []
        self.deleted: list[str] = []
        self.events: list[str] = []
        self.writes = 0

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if kind == KIND:
            return self.raw
        if kind == "CustomResourceDefinition":
            if self.crd is None:
                raise ApiError(403, "Forbidden", "no right to read CRDs")
            return self.crd
        return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        return self.listed.get(kind, [])

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        (self.events if kind == "Event" else self.made).append(manifest["reason"] if kind == "Event" else kind)
        return manifest

    async def delete(self, kind: str, namespace: str, name: str, uid: str, **options: Any) -> None:
        self.deleted.append(name)

    async def replace_status(self, kind: str, obj: Object) -> Object:
        self.writes += 1
        stored = self.prune(obj)
        if stored != self.raw:
            version = str(int(self.raw["metadata"]["resourceVersion"]) + 1)
            self.raw = {**stored, "metadata": {**stored["metadata"], "resourceVersion": version}}
        return self.raw

    def edit(self, **spec: Any) -> None:
        """A user changes the job."""
        metadata = self.raw["metadata"]
        version = str(int(metadata["resourceVersion"]) + 1)
        changed = {**metadata, "generation": metadata["generation"] + 1, "resourceVersion": version}
        self.raw = {**self.raw, "metadata": changed, "spec": {**self.raw["spec"], **spec}}


def run_passes(server: JobServer, count: int = 1, since: float = 0) -> list[float | None]:
    """Passes of one operator, a minute apart, that read everything; returns the seconds until the next of each."""

    async def story() -> list[float | None]:
        now = [since]
        poller = Poller(nobody, lambda _: None, SETTINGS.poll)
        observer = Observer(server, PodCache(), SETTINGS.resync, lambda: at(now[0]))
        reconciler = Reconciler(server, observer, SETTINGS, Metrics(), poller, lambda: at(now[0]))
        wakes = []
        for _ in range(count):
            wakes.append(await reconciler.reconcile(KEY, True))
            now[0] += 60
        await poller.stop()
        return wakes

    return asyncio.run(story())
