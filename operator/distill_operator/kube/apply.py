"""Applies a plan: the status first, then actions, then events. The next pass completes what is interrupted."""

import logging
from datetime import datetime
from typing import Any

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.kube import objects, texts
from distill_operator.kube.client import ApiError, Kube
from distill_operator.kube.objects import Object
from distill_operator.types.actions import Action, Create, Delete, Event
from distill_operator.types.observed import Rejection

LOG = logging.getLogger(__name__)


class ConflictError(Exception):
    """The job was changed after it was read: the plan is discarded, and the pass starts again."""


async def store(kube: Kube, raw: Object, status: DistillJobStatus) -> Object:
    """Write the status and return the job as it is now stored. Raises ConflictError, ApiError."""
    try:
        return await kube.replace_status(KIND, {**raw, "status": status.to_wire()})
    except ApiError as error:
        if error.code in (404, 409):
            raise ConflictError(error.message) from error
        raise


async def act(kube: Kube, namespace: str, owner_uid: str, actions: tuple[Action, ...]) -> Rejection | None:
    """Do the actions in order. Stops at the first object that is refused, and returns why. Raises ApiError."""
    for action in actions:
        match action:
            case Delete():
                await kube.delete(
                    action.kind, namespace, action.name, action.uid,
                    foreground=action.foreground, at_once=action.at_once,
                )  # fmt: skip
            case Create():
                rejection = await _create(kube, namespace, owner_uid, action)
                if rejection is not None and action.optional:
                    LOG.info("%s of %s was refused: %s", action.what, namespace, rejection.message)
                elif rejection is not None:
                    return rejection
    return None


async def _create(kube: Kube, namespace: str, owner_uid: str, action: Create) -> Rejection | None:
    kind = action.manifest["kind"]
    try:
        await kube.create(kind, namespace, action.manifest)
    except ApiError as error:
        if error.code == 409 and error.reason == "AlreadyExists":
            present = await kube.get(kind, namespace, action.manifest["metadata"]["name"])
            if present is None or objects.owned_by(present, owner_uid):
                return None
            return Rejection(action.what, error.message, Reason.NAME_TAKEN)
        if not texts.is_refusal(error.code, error.message):
            raise
        return Rejection(action.what, error.message, texts.reason_of_refusal(error.message, error.code))
    return None


async def record(kube: Kube, raw: Object, events: tuple[Event, ...], now: datetime) -> None:
    """Write Kubernetes events. An event that is refused is only logged."""
    for event in events:
        try:
            await kube.create("Event", raw["metadata"]["namespace"], _manifest(raw, event, now))
        except ApiError as error:
            LOG.warning("event %s of %s was refused: %s", event.reason, raw["metadata"]["name"], error)


def _manifest(raw: Object, event: Event, now: datetime) -> dict[str, Any]:
    metadata = raw["metadata"]
    at = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": f"{metadata['name']}.", "namespace": metadata["namespace"]},
        "involvedObject": {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata.get("resourceVersion"),
        },
        "type": event.reason.facts.event_type,
        "reason": event.reason,
        "message": event.message[:1024],
        "source": {"component": FIELD_MANAGER},
        "reportingComponent": FIELD_MANAGER,
        "firstTimestamp": at,
        "lastTimestamp": at,
        "count": 1,
    }
