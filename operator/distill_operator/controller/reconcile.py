"""The pass over one job: observe, plan, apply."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from distill_operator.controller.rank0.client import Target
from distill_operator.controller.rank0.poller import Poller
from distill_operator.controller.telemetry import logs
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.kube.apply import ConflictError, act, record, store, store_raw
from distill_operator.kube.client import Kube
from distill_operator.kube.observe import Observation, Observer, UnreadableJobError
from distill_operator.kube.pod_cache import Key
from distill_operator.plan import unreadable
from distill_operator.plan.plan import make_plan
from distill_operator.types import attempts
from distill_operator.types.actions import Plan
from distill_operator.types.observed import Observed, Rejection
from distill_operator.types.settings import Settings

LOG = logging.getLogger(__name__)


class Reconciler:
    """Runs passes. Between two passes only Observer keeps anything, to save requests."""

    def __init__(
        self,
        kube: Kube,
        observer: Observer,
        settings: Settings,
        metrics: Metrics,
        poller: Poller,
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._observer = observer
        self._settings = settings
        self._metrics = metrics
        self._poller = poller
        self._clock = clock

    async def reconcile(self, key: Key, fresh: bool) -> float | None:
        """One pass; returns the seconds until the next one. Raises ApiError; the work queue then retries."""
        began = time.monotonic()
        try:
            observation = await self._observer.observe(key, fresh=fresh)
            if observation is None:
                self._metrics.forget(key)
                self._poller.watch(key, None)
                return None
            logs.about(key, observation.observed.job.status.attempt)
            wake_after = await self._plan_and_apply(key, self._with_rank0(key, observation))
        except UnreadableJobError as error:
            self._poller.watch(key, None)
            await self._refuse(error)
            wake_after = self._settings.resync
        except ConflictError:
            LOG.debug("%s/%s changed during the pass", *key)
            self._observer.invalidate(key)
            wake_after = 0.0
        self._metrics.passed(time.monotonic() - began)
        return wake_after

    def _with_rank0(self, key: Key, observation: Observation) -> Observation:
        """The observation with what asking rank 0 has shown."""
        observed = observation.observed
        self._poller.watch(key, rank0_of(observed))
        asked = replace(observed, trainer=self._poller.answer(key), silence=self._poller.silence(key))
        return replace(observation, observed=asked)

    async def _plan_and_apply(self, key: Key, observation: Observation) -> float | None:
        plan = make_plan(observation.observed, self._clock(), self._settings)
        observation, rejection = await self._apply(key, observation, plan)
        if rejection is not None:  # plan again with the refusal
            observation = replace(observation, observed=replace(observation.observed, rejection=rejection))
            plan = make_plan(observation.observed, self._clock(), self._settings)
            plan = replace(plan, actions=())  # they would be refused again
            observation, _ = await self._apply(key, observation, plan)
        status = observation.observed.job.status
        self._metrics.state(key, observation.observed.job)
        if observation.observed.deleting or status.over:
            return plan.wake_after
        resync = self._settings.resync
        return min(resync, resync if plan.wake_after is None else plan.wake_after)

    async def _apply(self, key: Key, observation: Observation, plan: Plan) -> tuple[Observation, Rejection | None]:
        old, raw = observation.observed.job.status, observation.raw
        if plan.status is not None:
            raw = await store(self._kube, raw, plan.status)
            observation = self._observer.stored(key, raw, plan.status)
            self._metrics.transition(key, old, plan.status)
            logs.about(key, plan.status.attempt)
            if old.phase != plan.status.phase:
                LOG.info("%s/%s: %s, attempt %d", *key, plan.status.phase, plan.status.attempt)
        try:
            rejection = await act(self._kube, key[0], raw["metadata"]["uid"], plan.actions)
        finally:  # the transition is stored, so a pass that retries the actions would not record it again
            await record(self._kube, raw, plan.events, self._clock())
        return observation, rejection

    async def _refuse(self, error: UnreadableJobError) -> None:
        """Say what cannot be read, once, and do nothing else."""
        said = unreadable.plan(error.raw, error.errors, self._clock())
        if said is None:
            return
        LOG.warning("%s cannot be read: %s", error.raw["metadata"]["name"], error.errors)
        raw = await store_raw(self._kube, error.raw, said.status)
        await record(self._kube, raw, (said.event,), self._clock())


def rank0_of(observed: Observed) -> Target | None:
    """The rank 0 to ask; None while none is running."""
    attempt = attempts.open_attempt(observed.job.status)
    if attempt is None or observed.deleting:
        return None
    running = (p for p in observed.pods_of(attempt.number) if p.rank == 0 and p.live and p.phase == "Running")
    ip = next((pod.ip for pod in running if pod.ip is not None), None)
    return Target(ip, observed.uid, attempt.number) if ip is not None else None
