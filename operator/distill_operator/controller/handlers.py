"""Registers with kopf what wakes a job. Nothing is decided here, and kopf writes nothing into any object."""

from typing import Any

import kopf

from distill_api.constants import API_VERSION, PLURAL, Label
from distill_operator.controller.operator import Operator


def register(registry: kopf.OperatorRegistry, operator: Operator) -> None:
    """Watch DistillJobs, and the Jobs and pods that carry a DistillJob's label."""
    group, version = API_VERSION.split("/")

    @kopf.on.login(registry=registry)
    def login(**kwargs: Any) -> kopf.ConnectionInfo | None:
        return kopf.login_with_service_account(**kwargs) or kopf.login_with_kubeconfig(**kwargs)

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
    # Default: events for log lines of handlers. The operator tells transitions itself, and needs no more rights.
    settings.posting.enabled = False
    # Default 300 s. A request that the API server does not answer in 30 s is better made again.
    settings.networking.request_timeout = 30
    # Default 70 s without a byte, then the watch is made anew: half-open connections are noticed. Kept, in words.
    settings.watching.inactivity_timeout = 70
    # Default none: the server ends a watch after some random time. 10 min bounds what a lost event can cost.
    settings.watching.server_timeout = 600
    # Default: list and watch CRDs and namespaces to notice new ones. The CRD is there before the operator is.
    settings.scanning.disabled = True
    # Default none: every Job and pod of the cluster would be sent, to be dropped here.
    for group, version, plural in (("batch", "v1", "jobs"), ("", "v1", "pods")):
        settings.watching.label_selectors[group, version, plural] = Label.JOB
