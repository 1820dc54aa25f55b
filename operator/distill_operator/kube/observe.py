"""Reads everything about one DistillJob. Thin: nothing is decided here."""

import asyncio
import time
from dataclasses import dataclass, replace

import aiohttp
from pydantic import ValidationError

from distill_api.constants import KIND, TERMINAL_PHASES, Label, Phase
from distill_api.job import DistillJob
from distill_api.pod.report import TrainerStatus
from distill_api.reading.mistakes import explain
from distill_api.status import DistillJobStatus
from distill_operator.kube import objects, texts
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object
from distill_operator.kube.pod_cache import Key, PodCache, with_departed
from distill_operator.types import attempts, naming
from distill_operator.types.observed import ClaimFacts, JobFacts, Observed, PodFacts, Rejection

STATUS_SECONDS = 2.0
"""Timeout of a request to rank 0, which serves a few hundred bytes from memory."""

ENDING_STATUS_SECONDS = 0.5
"""The same while some pod is not running: rank 0 is probably ending, too, and the next attempt should not wait."""


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
    """Observes jobs, and keeps each last observation for passes that only read rank 0's status."""

    def __init__(self, kube: Kube, pod_cache: PodCache, http: aiohttp.ClientSession, resync: float) -> None:
        self._kube = kube
        self._pod_cache = pod_cache
        self._http = http
        self._resync = resync
        self._last: dict[Key, Observation] = {}

    async def observe(self, key: Key, *, fresh: bool) -> Observation | None:
        """The observation of a job; None if the job is gone. Raises ApiError and UnreadableJobError.

        With fresh=False, which timers use, the objects of a running job are not read again: a change of one of them
        would have woken the job with fresh=True.
        """
        last = self._last.get(key)
        if not fresh and last is not None and self._still_valid(last):
            observation = replace(
                last, observed=replace(last.observed, trainer=await self._rank0_status(last.observed.pods))
            )
        else:
            read = await self._read(key)
            if read is None:
                self.forget(key)
                return None
            observation = read
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
            job = DistillJob.model_validate(raw)
        except ValidationError as error:
            raise UnreadableJobError(raw, "\n".join(explain(error, DistillJob))) from None
        uid = raw["metadata"]["uid"]
        noted = self._pod_cache.of(key)  # before the list: a pod that is noted but not listed is gone
        of_job = f"{Label.JOB}={name}"
        raw_jobs, raw_services = await asyncio.gather(
            *(self._kube.list(kind, namespace, labelSelector=of_job) for kind in ("Job", "Service"))
        )
        # After the Jobs, so that the list has every pod of a Job that was seen to be inert.
        raw_pods = await self._kube.list("Pod", namespace, labelSelector=of_job)
        jobs = tuple(objects.job_facts(child, uid) for child in raw_jobs if not objects.is_placeholder(child))
        known = {a.job_uid: a.number for a in job.status.attempts if a.job_uid}
        known |= {child.uid: child.attempt for child in jobs if child.owned}
        listed = [objects.pod_facts(pod) for pod in raw_pods if not objects.is_placeholder(pod)]
        pods = objects.of_attempts(with_departed(listed, noted), known)
        pods = tuple(pod for pod in pods if not pod.gone or pod.attempt == job.status.attempt)
        self._pod_cache.keep_only(key, {pod.uid for pod in pods} | (self._pod_cache.of(key).keys() - noted.keys()))
        observed = Observed(
            job=job,
            namespace=namespace,
            deleting=bool(raw["metadata"].get("deletionTimestamp")),
            jobs=jobs,
            pods=pods,
            services=tuple(objects.service_facts(service, uid) for service in raw_services),
            placeholders=objects.placeholders(raw_jobs, raw_pods, uid),
        )
        return Observation(await self._with_phase_details(observed), raw, at)

    async def _with_phase_details(self, observed: Observed) -> Observed:
        """Add what is read only in some phases: claims before an attempt, rank 0's status and refusals during one."""
        status = observed.job.status
        if observed.deleting or status.phase in TERMINAL_PHASES:
            return observed
        attempt = attempts.open_attempt(status)
        if attempt is None or attempt.reason is not None:  # the next one may start in this pass
            observed = replace(observed, claims=await self._claims(observed))
        if attempt is None:
            return observed
        job = observed.job_of(attempt.number)
        if job is None:
            return observed
        never_whole = attempt.scheduled_at is None  # afterwards a missing pod is gone, and was not refused
        if never_whole and job.failing_at is None and len(observed.pods_of(attempt.number)) < attempt.nodes:
            observed = replace(observed, rejection=await self._rejection(observed.namespace, job))
        if attempt.reason is None:
            observed = replace(observed, victims=await self._victims(observed.namespace, job))
        return replace(observed, trainer=await self._rank0_status(observed.pods_of(attempt.number)))

    async def _claims(self, observed: Observed) -> tuple[ClaimFacts, ...]:
        volumes = naming.volumes(observed.job.spec).items()
        names = {naming.claim_name(observed.name, volume, source) for volume, source in volumes}
        found = await asyncio.gather(
            *(self._kube.get("PersistentVolumeClaim", observed.namespace, name) for name in sorted(names))
        )
        return tuple(objects.claim_facts(claim, observed.uid) for claim in found if claim is not None)

    async def _rejection(self, namespace: str, job: JobFacts) -> Rejection | None:
        selector = f"involvedObject.uid={job.uid},reason={texts.POD_NOT_CREATED}"
        events = await self._kube.list("Event", namespace, fieldSelector=selector)
        events.sort(key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or "")
        return objects.rejection_of_pods(job.name, [event.get("message", "") for event in events])

    async def _victims(self, namespace: str, job: JobFacts) -> dict[str, str]:
        name = texts.disrupted_pod(job.failure_message)
        if name is None:
            return {}
        selector = f"involvedObject.name={name},reason={texts.POD_PREEMPTED}"
        events = await self._kube.list("Event", namespace, fieldSelector=selector)
        return {name: events[-1].get("message", "")} if events else {}

    async def _rank0_status(self, pods: tuple[PodFacts, ...]) -> TrainerStatus | None:
        """Rank 0's /status; None if rank 0 is not running or does not answer in time."""
        ip = next((pod.ip for pod in pods if pod.rank == 0 and pod.live and pod.phase == "Running"), None)
        if ip is None:
            return None
        longest = STATUS_SECONDS if all(pod.running for pod in pods) else ENDING_STATUS_SECONDS
        try:
            timeout = aiohttp.ClientTimeout(total=longest)
            async with self._http.get(naming.status_url(ip), timeout=timeout) as answer:
                return TrainerStatus.model_validate_json(await answer.text())
        except (aiohttp.ClientError, TimeoutError, ValidationError):
            return None
