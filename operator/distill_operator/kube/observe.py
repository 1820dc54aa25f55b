"""Reads everything about one DistillJob. Thin: nothing is decided here."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from pydantic import ValidationError

from distill_api.constants import KIND, Label, Phase
from distill_api.job import DistillJob, read_stored
from distill_api.reading.mistakes import explain
from distill_api.reading.unknown import unknown_fields
from distill_api.spec.fields import DistillJobSpec
from distill_api.status import DistillJobStatus
from distill_operator.kube import objects, texts
from distill_operator.kube.client import Kube
from distill_operator.kube.crd import ClusterCrd
from distill_operator.kube.events import event_time, rejection_of_pods, with_start_event
from distill_operator.kube.objects import Object
from distill_operator.kube.pod_cache import Key, PodCache, with_departed
from distill_operator.types import attempts
from distill_operator.types.observed import ClaimFacts, JobFacts, Observed, PodFacts, Rejection

STARTING = timedelta(seconds=20)
"""How long a pod may take to get its volumes and its network before its events are read."""

PODS_WITH_EVENTS = 3
"""Pods of a gang whose events are read in a pass: all have the same template, so they wait for the same."""


class UnreadableJobError(Exception):
    """A stored DistillJob that this version of the contract cannot read."""

    def __init__(self, raw: Object, errors: str) -> None:
        super().__init__(errors)
        self.raw = raw
        self.errors = errors


@dataclass(frozen=True)
class Observation:
    """What a pass has observed, and what is needed to use it again."""

    observed: Observed
    raw: Object
    """The DistillJob as the API server returned it, with its resourceVersion."""
    at: float
    """Monotonic time when everything was read."""


class Observer:
    """Observes jobs, and keeps each last observation for passes that have only rank 0's status to look at."""

    def __init__(
        self,
        kube: Kube,
        pod_cache: PodCache,
        resync: float,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._pod_cache = pod_cache
        self._resync = resync
        self._clock = clock
        self._crd = ClusterCrd(kube)
        self._last: dict[Key, Observation] = {}

    async def observe(self, key: Key, *, fresh: bool) -> Observation | None:
        """The observation of a job; None if the job is gone. Raises ApiError and UnreadableJobError.

        With fresh=False, which timers use, the objects of a running job are not read again: a change of one of them
        would have woken the job with fresh=True.
        """
        last = self._last.get(key)
        if not fresh and last is not None and self._still_valid(last):
            return last
        observation = await self._read(key)
        if observation is None:
            self.forget(key)
            return None
        self._last[key] = observation
        return observation

    def stored(self, key: Key, raw: Object, status: DistillJobStatus) -> Observation:
        """The last observation with the status that has just been written."""
        last = self._last[key]
        job = last.observed.job.model_copy(update={"status": status})
        self._last[key] = replace(last, raw=raw, observed=replace(last.observed, job=job))
        return self._last[key]

    def knows(self, key: Key, resource_version: str) -> bool:
        """Whether a watch event only reports the operator's own write."""
        last = self._last.get(key)
        return last is not None and last.raw["metadata"].get("resourceVersion") == resource_version

    def invalidate(self, key: Key) -> None:
        """Drop the last observation, so that the next pass reads everything."""
        self._last.pop(key, None)

    def forget(self, key: Key) -> None:
        """Drop everything about a job that is gone."""
        self.invalidate(key)
        self._pod_cache.keep_only(key, set())

    def _still_valid(self, last: Observation) -> bool:
        young = time.monotonic() - last.at < self._resync
        return young and last.observed.job.status.phase == Phase.RUNNING

    async def _read(self, key: Key) -> Observation | None:
        namespace, name = key
        at = time.monotonic()
        raw = await self._kube.get(KIND, namespace, name)
        if raw is None:
            return None
        try:
            job = self._as_written(key, raw, read_stored(raw))
        except ValidationError as error:
            raise UnreadableJobError(raw, "; ".join(explain(error, DistillJob))) from None
        uid = raw["metadata"]["uid"]
        noted = self._pod_cache.of(key)  # before the list: a pod that is noted but not listed is gone
        of_job = f"{Label.JOB}={name}"
        raw_jobs, raw_services = await asyncio.gather(
            *(self._kube.list(kind, namespace, labelSelector=of_job) for kind in ("Job", "Service"))
        )
        # After the Jobs, so that the list has every pod of a Job that was seen to be inert.
        raw_pods = await self._kube.list("Pod", namespace, labelSelector=of_job)
        raw_pods = [pod for pod in raw_pods if objects.job_of_child(pod) == name]
        jobs = tuple(objects.job_facts(child, uid) for child in raw_jobs if not objects.is_placeholder(child))
        known = {a.job_uid: a.number for a in job.status.attempts if a.job_uid}
        known |= {child.uid: child.attempt for child in jobs if child.owned}
        listed = [objects.pod_facts(pod) for pod in raw_pods if not objects.is_placeholder(pod)]
        pods = objects.of_attempts(with_departed(listed, noted), known, uid)
        pods = tuple(pod for pod in pods if not pod.gone or pod.attempt == job.status.attempt)
        self._pod_cache.keep_only(key, {pod.uid for pod in pods} | (self._pod_cache.of(key).keys() - noted.keys()))
        observed = Observed(
            job=job,
            namespace=namespace,
            deleting=objects.is_deleting(raw),
            jobs=jobs,
            pods=pods,
            services=tuple(objects.service_facts(service, uid) for service in raw_services),
            placeholders=objects.placeholders(raw_jobs, raw_pods, uid),
            unknown_fields=await self._crd.asked_for(unknown_fields(raw["spec"], DistillJobSpec)),
        )
        return Observation(await self._with_phase_details(observed), raw, at)

    def _as_written(self, key: Key, raw: Object, job: DistillJob) -> DistillJob:
        """The job with the status as this process wrote it, unless something has changed since.

        The API server drops fields that are not in the CRD. Read back, they would be missing, and every pass would
        write and announce them again.
        """
        last = self._last.get(key)
        if last is None or last.raw["metadata"].get("resourceVersion") != raw["metadata"].get("resourceVersion"):
            return job
        return job.model_copy(update={"status": last.observed.job.status})

    async def _with_phase_details(self, observed: Observed) -> Observed:
        """Add what is read only in some phases: claims before an attempt, refusals during one."""
        status = observed.job.status
        if observed.deleting or status.over:
            return observed
        attempt = attempts.open_attempt(status)
        if attempt is None or attempt.reason is not None:  # the next one may start in this pass
            observed = replace(observed, claims=await self._claims(observed))
        if attempt is None:
            return observed
        job = observed.job_of(attempt.number)
        if job is None:
            return observed
        # Once all pods were there, a missing one is gone and was not refused; and a queue's Job has no pods.
        may_lack_pods = attempt.scheduled_at is None and job.failing_at is None and not job.suspended
        if may_lack_pods and len(observed.pods_of(attempt.number)) < attempt.nodes:
            observed = replace(observed, rejection=await self._rejection(observed.namespace, job))
        if attempt.reason is None:
            observed = replace(observed, victims=await self._victims(observed.namespace, job))
        if attempt.reason is None and attempt.running_at is None:
            observed = replace(observed, pods=await self._with_start_events(observed, attempt.number))
        return observed

    async def _claims(self, observed: Observed) -> tuple[ClaimFacts, ...]:
        names = set(observed.job.spec.volumes.claims(observed.name).values())
        found = await asyncio.gather(
            *(self._kube.get("PersistentVolumeClaim", observed.namespace, name) for name in sorted(names))
        )
        return tuple(objects.claim_facts(claim, observed.uid) for claim in found if claim is not None)

    async def _rejection(self, namespace: str, job: JobFacts) -> Rejection | None:
        selector = f"involvedObject.uid={job.uid},reason={texts.POD_NOT_CREATED}"
        events = await self._kube.list("Event", namespace, fieldSelector=selector)
        events.sort(key=event_time)
        return rejection_of_pods(job.name, [event.get("message", "") for event in events])

    async def _victims(self, namespace: str, job: JobFacts) -> dict[str, str]:
        name = texts.disrupted_pod(job.failure_message)
        if name is None:
            return {}
        selector = f"involvedObject.name={name},reason={texts.POD_PREEMPTED}"
        events = await self._kube.list("Event", namespace, fieldSelector=selector)
        return {name: events[-1].get("message", "")} if events else {}

    async def _with_start_events(self, observed: Observed, number: int) -> tuple[PodFacts, ...]:
        """The pods; those that have had a node for a while but no sandbox with the reason, which only events have."""
        now = self._clock()
        slow = [
            pod for pod in observed.pods_of(number)
            if pod.starting and not pod.waiting and not pod.sandbox_ready
            and pod.scheduled_at is not None and now - pod.scheduled_at >= STARTING
        ]  # fmt: skip
        told = {}
        for pod in slow[:PODS_WITH_EVENTS]:
            selector = f"involvedObject.uid={pod.uid},type=Warning"
            events = await self._kube.list("Event", observed.namespace, fieldSelector=selector)
            told[pod.uid] = with_start_event(pod, events)
        return tuple(told.get(pod.uid, pod) for pod in observed.pods)
