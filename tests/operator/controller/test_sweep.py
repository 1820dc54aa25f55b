"""Jobs that were deleted while no watch was open do not stay in the metrics."""

import asyncio

import pytest

from distill_api.constants import Phase
from distill_operator.controller import sweep
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object
from distill_operator.kube.pod_cache import Key
from tests.support.operator.samples import job, status


class Jobs(Kube):
    """An API server with these jobs; one of its namespaces cannot be listed."""

    def __init__(self, *present: Key) -> None:
        self.present = present

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[Object]:  # noqa: ARG002
        if namespace == "away":
            raise ApiError(503, "ServiceUnavailable", "for a test")
        return [{"metadata": {"name": name}} for ns, name in self.present if ns == namespace]


def test_a_job_that_was_deleted_unseen_is_woken_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweep, "SWEEP_SECONDS", 0.01)
    metrics, woken = Metrics(), set()
    for key in (("team", "here"), ("team", "gone"), ("other", "gone"), ("away", "unknown")):
        metrics.state(key, job(status(phase=Phase.SUCCEEDED)))

    async def story() -> None:
        task = asyncio.create_task(sweep.sweep(Jobs(("team", "here")), metrics.jobs, woken.add))
        await asyncio.sleep(0.1)
        task.cancel()

    asyncio.run(story())
    assert woken == {("team", "gone"), ("other", "gone")}


def test_a_forgotten_job_has_no_series() -> None:
    metrics = Metrics()
    metrics.state(("team", "gone"), job(status(phase=Phase.SUCCEEDED)))
    metrics.forget(("team", "gone"))
    assert metrics.jobs() == set()
    assert not [
        m for family in metrics.registry.collect() for m in family.samples if m.labels.get("distilljob") == "gone"
    ]
