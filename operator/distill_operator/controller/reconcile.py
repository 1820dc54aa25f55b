"""The pass over one job: observe, plan, apply."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from distill_api.constants import TERMINAL_PHASES
from distill_operator.controller.metrics import Metrics
from distill_operator.kube.apply import ConflictError, act, record, store
from distill_operator.kube.client import Kube
from distill_operator.kube.observe import Observation, Observer, UnreadableJobError
from distill_operator.kube.pod_cache import Key
from distill_operator.plan import unreadable
from distill_operator.plan.plan import make_plan
from distill_operator.types.actions import Plan
from distill_operator.types.observed import Rejection
from distill_operator.types.settings import Settings

LOG = logging.getLogger(__name__)


def utc_now() -> datetime:
    """The time in whole seconds, as Kubernetes writes it."""
    return datetime.now(UTC).replace(microsecond=0)


class Reconciler:
    """Runs passes. Between two passes only Observer keeps anything, to save requests."""

    def __init__(
        self,
        kube: Kube,
        observer: Observer,
        settings: Settings,
        metrics: Metrics,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._kube = kube
        self._observer = observer
        self._settings = settings
        self._metrics = metrics
        self._clock = clock

    async def reconcile(self, key: Key, fresh: bool) -> float | None:
        """One pass; returns the seconds until the next one. Raises ApiError; the work queue then retries."""
        began = time.monotonic()
        try:
            observation = await self._observer.observe(key, fresh=fresh)
            if observation is None:
                self._metrics.forget(key)
                return None
            wake_after = await self._plan_and_apply(key, observation)
        except UnreadableJobError as error:
            await self._refuse(error)
            wake_after = None
        except ConflictError:
            LOG.debug("%s/%s changed during the pass", *key)
            self._observer.invalidate(key)
            wake_after = 0.0
        self._metrics.passed(time.monotonic() - began)
        return wake_after

    async def _plan_and_apply(self, key: Key, observation: Observation) -> float | None:
        plan = make_plan(observation.observed, self._clock(), self._settings)
        observation, rejection = await self._apply(key, observation, plan)
        if rejection is not None:  # plan again with the refusal
            observation = replace(observation, observed=replace(observation.observed, rejection=rejection))
            plan = make_plan(observation.observed, self._clock(), self._settings)
            plan = replace(plan, actions=())  # they would be refused again
            observation, _ = await self._apply(key, observation, plan)
        status = observation.observed.job.status
        self._metrics.state(key, status)
        if observation.observed.deleting or status.phase in TERMINAL_PHASES:
            return plan.wake_after
        resync = self._settings.resync
        return min(resync, resync if plan.wake_after is None else plan.wake_after)

    async def _apply(self, key: Key, observation: Observation, plan: Plan) -> tuple[Observation, Rejection | None]:
        old, raw = observation.observed.job.status, observation.raw
        if plan.status is not None:
            raw = await store(self._kube, raw, plan.status)
            observation = self._observer.stored(key, raw, plan.status)
            self._metrics.transition(key, old, plan.status)
            if old.phase != plan.status.phase:
                LOG.info("%s/%s: %s, attempt %d", *key, plan.status.phase, plan.status.attempt)
        try:
            rejection = await act(self._kube, key[0], raw["metadata"]["uid"], plan.actions)
        finally:  # the transition is stored, so a pass that retries the actions would not record it again
            await record(self._kube, raw, plan.events, self._clock())
        return observation, rejection

    async def _refuse(self, error: UnreadableJobError) -> None:
        plan = unreadable.plan(error.raw, error.errors, self._clock())
        LOG.warning("%s cannot be read: %s", error.raw["metadata"]["name"], error.errors)
        if plan.status is not None:
            raw = await store(self._kube, error.raw, plan.status)
            await record(self._kube, raw, plan.events, self._clock())
