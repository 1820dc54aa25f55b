"""Client: creates, reads, changes and watches DistillJobs on a cluster."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal

from distill_api.constants import (
    COMPLETION_INDEX,
    KIND,
    TERMINAL_PHASES,
    TRAINER_CONTAINER,
    Component,
    ConditionType,
    Label,
    Phase,
)
from distill_api.reading.mistakes import nearest
from distill_api.status import Result
from distill_client import logs
from distill_client.apiserver.connection import Connection
from distill_client.apiserver.kinds import Object, path
from distill_client.checking import Check, run_check
from distill_client.document import JobSource, document
from distill_client.errors import ClientError, Conflict, JobFailed, NotFound, TimedOut
from distill_client.job import Job
from distill_client.logs import LogLine
from distill_client.watching import watch

FIELD_MANAGER: Final = "distill-cli"
Jobs = list[Job]
Objects = list[Object]
Until = Literal["finished", "running", "suspended"]
_MERGE: Final = "application/merge-patch+json"
_PODS_OF: Final = f"{Label.JOB}={{}},{Label.COMPONENT}={Component.TRAINER}"


class Client:
    """DistillJobs of one namespace. Every method raises ClientError, one line with its remedy, if a request fails."""

    def __init__(
        self,
        *,
        namespace: str | None = None,
        context: str | None = None,
        kubeconfig: str | os.PathLike[str] | None = None,
        timeout: float = 20.0,
    ) -> None:
        """The arguments are as those of kubectl; by default everything is as the kubeconfig says.

        `timeout`: seconds that a request may take. Nothing is sent yet.
        """
        self.connection = Connection(kubeconfig=kubeconfig, context=context, namespace=namespace, timeout=timeout)

    @property
    def namespace(self) -> str:
        """The namespace that the client works in."""
        return self.connection.namespace

    # --- jobs

    def create(self, job: JobSource, *, dry_run: bool = False) -> Job:
        """Create a job from a YAML file, a dictionary or a DistillJob. With `dry_run` the API server only checks it."""
        body = document(job, self.namespace)
        query = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict", **_dry(dry_run)}
        return Job(self.connection.request("POST", path(KIND, body["metadata"]["namespace"]), query=query, body=body))

    def check(self, job: JobSource, *, timeout: float = 600.0, told: Callable[[Job], None] = lambda _: None) -> Check:
        """Check volumes, models, the pair and the data set of a job in one pod without accelerators, which is deleted.

        `told` is called with each state of it. Raises TimedOut after `timeout` seconds.
        """
        return run_check(self, document(job, self.namespace), timeout, told)

    def apply(self, job: JobSource, *, dry_run: bool = False) -> Job:
        """Create the job, or change the stored one to it, as kubectl apply --server-side does."""
        body = document(job, self.namespace)
        metadata = body["metadata"]
        query = {"fieldManager": FIELD_MANAGER, "force": "true", **_dry(dry_run)}
        where = path(KIND, metadata["namespace"], metadata["name"])
        content = "application/apply-patch+yaml"
        return Job(self.connection.request("PATCH", where, query=query, body=json.dumps(body), content=content))

    def get(self, name: str, namespace: str | None = None) -> Job:
        """The job. Raises NotFound, with similar names if there are any."""
        namespace = namespace or self.namespace
        try:
            return Job(self.connection.request("GET", path(KIND, namespace, name)))
        except NotFound:
            raise self._unknown(name, namespace) from None

    def list(self, *, all_namespaces: bool = False) -> Jobs:
        """The jobs of the namespace, or of all, by namespace and name."""
        items = self.objects(KIND, None if all_namespaces else self.namespace)
        return sorted(map(Job, items), key=lambda job: (job.namespace, job.name))

    def watch(self, name: str | None = None, *, timeout: float | None = None) -> Iterator[Job]:
        """Each state of the job, or of all jobs of the namespace, from the present one on.

        Ends when the job that `name` names is deleted, and after `timeout` seconds. An API server that is away for some
        minutes ends nothing.
        """
        return watch(self.connection, name, math.inf if timeout is None else time.monotonic() + timeout)

    def wait(self, name: str, until: Until = "finished", *, timeout: float | None = None) -> Job:
        """Wait until the job is finished, running (or finished), or suspended, and return it.

        Raises JobFailed if it is Failed instead, NotFound if it is deleted, and TimedOut after `timeout` seconds.
        """
        self.get(name)
        for job in self.watch(name, timeout=timeout):
            seen = job.status.observed_generation
            if seen is not None and seen < job.generation:
                continue  # the operator has not seen the last change yet
            if job.phase == Phase.FAILED:
                raise _failed(job)
            if job.phase in _REACHED[until]:
                return job
            if job.phase in TERMINAL_PHASES:
                raise Conflict(f"DistillJob {name} is {job.phase}, and so never becomes {until}")
        self.get(name)  # raises NotFound if it was deleted
        raise TimedOut(f"DistillJob {name} is not {until} after {timeout or 0:.0f} s", f"distill why {name} says why")

    def result(self, name: str) -> Result:
        """The result of a finished job. Raises JobFailed, and Conflict if it is not finished."""
        job = self.get(name)
        if job.phase == Phase.FAILED:
            raise _failed(job)
        if job.status.result is None:
            raise Conflict(f"DistillJob {name} is {job.phase} and has no result yet", f"distill status {name} -w")
        return job.status.result

    def patch(self, name: str, spec: Mapping[str, Any], *, dry_run: bool = False) -> Job:
        """Change fields of spec; a value of None removes a field. Raises Refused."""
        query = {"fieldManager": FIELD_MANAGER, **_dry(dry_run)}
        where = path(KIND, self.namespace, name)
        try:
            body = {"spec": dict(spec)}
            return Job(self.connection.request("PATCH", where, query=query, body=body, content=_MERGE))
        except NotFound:
            raise self._unknown(name, self.namespace) from None

    def suspend(self, name: str) -> Job:
        """Ask the job to commit a checkpoint and to stop; `wait(name, "suspended")` waits for it."""
        return self.patch(name, {"suspend": True})

    def resume(self, name: str) -> Job:
        """Let a suspended job go on from its last checkpoint."""
        return self.patch(name, {"suspend": False})

    def scale(self, name: str, nodes: int) -> Job:
        """Change the number of nodes of an elastic job. Raises Refused if the job cannot have that many."""
        return self.patch(name, {"nodes": nodes})

    def delete(self, name: str, *, uid: str = "", namespace: str | None = None) -> None:
        """Delete the job, with the claims that the operator made for it unless they are retained.

        `uid`: delete it only if it still is the job with this UID; else raises Conflict.
        """
        options = {"propagationPolicy": "Background", **({"preconditions": {"uid": uid}} if uid else {})}
        try:
            self.connection.request("DELETE", path(KIND, namespace or self.namespace, name), body=options)
        except NotFound:
            raise self._unknown(name, namespace or self.namespace) from None

    # --- what belongs to a job

    def objects(self, kind: str, namespace: str | None, **selectors: str) -> Objects:
        """Objects of a kind in one namespace, or in all for None. `selectors`: labelSelector, fieldSelector."""
        return list(self.connection.request("GET", path(kind, namespace), query=selectors).get("items") or ())

    def pods(self, name: str, attempt: int | None = None) -> Objects:
        """The training pods of the job that still exist, by attempt and node rank."""
        selector = _PODS_OF.format(name) + (f",{Label.ATTEMPT}={attempt}" if attempt else "")
        return sorted(self.objects("Pod", self.namespace, labelSelector=selector), key=_place)

    def claims(self, job: Job) -> Objects:
        """The job's claims that exist."""
        names = set(job.claims.values())
        found = self.objects("PersistentVolumeClaim", job.namespace)
        return [claim for claim in found if claim["metadata"]["name"] in names]

    def events(self, name: str) -> Objects:
        """Events of the job, its Jobs, pods and claims that the cluster still has, oldest first."""
        found = self.objects("Event", self.namespace)
        mine = [event for event in found if _about(event["involvedObject"], name)]
        return sorted(mine, key=event_time)

    def logs(
        self,
        name: str,
        rank: int | None = None,
        *,
        attempt: int | None = None,
        follow: bool = False,
        tail: int | None = None,
    ) -> Iterator[LogLine]:
        """Log lines of the pod of a rank, or of all pods in the order of time.

        `attempt`: by default the newest one; pods of earlier attempts are most often gone. `tail`: only the last
        lines of each pod. Raises NotFound if there is no such pod.
        """
        job = self.get(name)
        attempt = attempt or job.status.attempt
        pods = self.pods(name, attempt)
        if rank is not None:
            node = rank // job.spec.processes_per_node
            pods = [pod for pod in pods if node_rank(pod) == node]
        if not pods:
            whose = f"rank {rank} of attempt {attempt}" if rank is not None else f"attempt {attempt}"
            raise NotFound(f"DistillJob {name} has no pod of {whose}", f"distill why {name} has what was recorded")
        query = {**({"follow": "true"} if follow else {}), **({"tailLines": str(tail)} if tail is not None else {})}
        names = [pod["metadata"]["name"] for pod in pods]
        sources = {pod: logs.read(self.connection, self.namespace, pod, TRAINER_CONTAINER, **query) for pod in names}
        return logs.follow(sources) if follow else logs.merged(sources)

    def _unknown(self, name: str, namespace: str) -> ClientError:
        try:
            names = [item["metadata"]["name"] for item in self.objects(KIND, namespace)]
        except ClientError:
            names = []
        near = nearest(name, names)
        remedy = f"did you mean {' or '.join(near)}?" if near else "distill list -A shows the jobs of all namespaces"
        return NotFound(f'there is no DistillJob "{name}" in namespace {namespace}', remedy)


_REACHED: Final[Mapping[Until, frozenset[Phase]]] = {
    "finished": frozenset({Phase.SUCCEEDED}),
    "running": frozenset({Phase.RUNNING, Phase.SUCCEEDED}),
    "suspended": frozenset({Phase.SUSPENDED}),
}


def failure(job: Job) -> str:
    """Why a Failed job failed: reason and message of its condition."""
    failed = job.condition(ConditionType.FAILED)
    if failed is None or failed.status != "True":
        return "no reason is recorded"
    return f"{failed.reason}: {failed.message}".rstrip(": ")


def _failed(job: Job) -> JobFailed:
    return JobFailed(f"DistillJob {job.name} is Failed: {failure(job)}", f"distill why {job.name} says more")


def node_rank(pod: Object) -> int:
    """The index of a training pod in its gang."""
    metadata = pod["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    found = labels.get(COMPLETION_INDEX) or annotations.get(COMPLETION_INDEX)
    return int(found) if found is not None else -1


def event_time(event: Object) -> str:
    """When an event last happened, as RFC 3339."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("lastTimestamp"), event.get("eventTime"))
    return str(next(filter(None, times), event["metadata"].get("creationTimestamp") or ""))


def _place(pod: Object) -> tuple[int, int]:
    return int((pod["metadata"].get("labels") or {}).get(Label.ATTEMPT) or 0), node_rank(pod)


def _about(what: Mapping[str, Any], job: str) -> bool:
    """Whether an event's object is the job or has a name that only a child of the job has."""
    name = str(what.get("name") or "")
    if what.get("kind") == KIND:
        return name == job
    attempt = name.removeprefix(f"{job}-a").partition("-")[0]
    child = name.startswith(f"{job}-a") and attempt.isdecimal()
    claim = what.get("kind") == "PersistentVolumeClaim"
    claims = (f"{job}-checkpoints", f"{job}-data", f"{job}-models")
    return child or (claim and name in claims) or name == f"{job}-grow" or name.startswith(f"{job}-grow-")


def _dry(dry_run: bool) -> dict[str, str]:
    return {"dryRun": "All"} if dry_run else {}
