"""Registers the watches with kopf. Nothing is decided here, and kopf writes nothing into any object."""

from typing import Any

import kopf

from distill_api.constants import API_VERSION, PLURAL, Label
from distill_operator.controller.operator import Operator
from distill_operator.controller.watches import Backoffs


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Watch DistillJobs, and the Jobs and pods that carry a DistillJob's label."""
    group, version = API_VERSION.split("/")

    @kopf.on.login(registry=registry)
    async def login(**kwargs: Any) -> kopf.AiohttpSession | None:
        info = kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)
        return operator.watches.session(info) if info is not None else None

    @kopf.on.startup(registry=registry, errors=kopf.ErrorsMode.PERMANENT)
    async def startup(settings: kopf.OperatorSettings, **_: Any) -> None:
        configure(settings)
        await operator.start()

    @kopf.on.cleanup(registry=registry)
    async def cleanup(**_: Any) -> None:
        await operator.stop()

    @kopf.on.event(group, version, PLURAL, registry=registry)
    async def distilljob_changed(event: Any, **_: Any) -> None:
        operator.job_changed(event["object"])

    @kopf.on.event("batch", "v1", "jobs", labels={Label.JOB: kopf.PRESENT}, registry=registry)
    async def child_job_changed(event: Any, **_: Any) -> None:
        operator.child_changed(event["object"])

    @kopf.on.event("", "v1", "pods", labels={Label.JOB: kopf.PRESENT}, registry=registry)
    async def pod_changed(event: Any, **_: Any) -> None:
        operator.pod_changed(event["object"], deleted=event["type"] == "DELETED")


def configure(settings: kopf.OperatorSettings) -> None:
    """kopf's settings that differ from its defaults."""
    # Default: an event for each log line of a handler. The operator writes its own events.
    settings.posting.enabled = False
    # Default 300 s. A request without an answer after 30 s is better repeated.
    settings.networking.request_timeout = 30
    # Default: nine attempts in 54 s, and then the operator ends. An API server that is away is waited for.
    settings.networking.error_backoffs = Backoffs()
    # The default: a watch without a byte for 70 s is restarted, which detects half-open connections.
    settings.watching.inactivity_timeout = 70
    # Default none: the server chooses when a watch ends. 10 min bounds the effect of a lost event.
    settings.watching.server_timeout = 600
    # Default: list and watch CRDs and namespaces for new ones. The CRD is installed before the operator.
    settings.scanning.disabled = True
    # Default none: the API server would send every Job and pod of the cluster.
    for group, version, plural in (("batch", "v1", "jobs"), ("", "v1", "pods")):
        settings.watching.label_selectors[group, version, plural] = Label.JOB
