"""Applies a plan: the status first, then actions, then events. The next pass completes what is interrupted."""

import logging
from datetime import datetime
from typing import Any

from distill_api.constants import API_VERSION, FIELD_MANAGER, KIND, Label
from distill_api.reading.unknown import with_unknown
from distill_api.reasons import Reason
from distill_api.status import LIST_KEYS, DistillJobStatus
from distill_operator.kube import objects, texts
from distill_operator.kube.answers import ApiError
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object
from distill_operator.types.actions import Action, Create, Delete, Event, Reserve
from distill_operator.types.clocks import timestamp
from distill_operator.types.observed import Rejection

LOG = logging.getLogger(__name__)


class ConflictError(Exception):
    """The job was changed after it was read: the plan is discarded, and the pass starts again."""


async def store(kube: Kube, raw: Object, status: DistillJobStatus) -> Object:
    """Write the status and return the job as it is now stored. Raises ConflictError, ApiError.

    Fields of newer versions that are in the stored status are kept.
    """
    wire = with_unknown(status.to_wire(), raw.get("status") or {}, DistillJobStatus, LIST_KEYS)
    return await store_raw(kube, raw, wire)


async def store_raw(kube: Kube, raw: Object, status: Object) -> Object:
    """Write exactly this status and return the job as it is now stored. Raises ConflictError, ApiError."""
    try:
        return await kube.replace_status(KIND, {**raw, "status": status})
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
            case Reserve():
                await _reserve(kube, namespace, action)
            case Create():
                rejection = await _create(kube, namespace, owner_uid, action)
                if rejection is not None and action.optional:
                    LOG.info("%s of %s was refused: %s", action.what, namespace, rejection.message)
                elif rejection is not None:
                    return rejection
    return None


async def _reserve(kube: Kube, namespace: str, action: Reserve) -> None:
    labels: dict[str, str] = {Label.ATTEMPT: str(action.attempt), Label.COMMITTED_STEP: str(action.committed_step)}
    try:
        await kube.label_next_pods(namespace, action.name, action.uid, labels)
    except ApiError as error:
        if error.code not in (404, 409) and not texts.is_refusal(error.code, error.message):
            raise
        LOG.info("Job %s of %s is not reserved for attempt %d: %s", action.name, namespace, action.attempt, error)


async def _create(kube: Kube, namespace: str, owner_uid: str, action: Create) -> Rejection | None:
    kind = action.manifest["kind"]
    try:
        if objects.image_volumes(action.manifest):
            stored = await kube.try_create(kind, namespace, action.manifest)
            if dropped := objects.image_volumes(action.manifest) - objects.image_volumes(stored):
                message = texts.NO_IMAGE_VOLUMES.format(volumes=", ".join(sorted(dropped)))
                return Rejection(action.what, message, Reason.NOT_ADMITTED)
        await kube.create(kind, namespace, action.manifest)
    except ApiError as error:
        if texts.is_refusal(error.code, error.message):
            reason = texts.reason_of_refusal(error.message, error.code, error.reason)
            return Rejection(action.what, error.message, reason)
        if error.code == 409 and error.reason == "AlreadyExists":
            present = await kube.get(kind, namespace, action.manifest["metadata"]["name"])
            rejection = _name_taken(action, present, owner_uid, error.message)
            if rejection is None and present is not None and action.update:
                await _update(kube, action, present)
            return rejection
        raise
    return None


def _name_taken(action: Create, present: Object | None, owner_uid: str, message: str) -> Rejection | None:
    """Why the object of this name is not the wanted one; None if it is."""
    is_own = objects.is_claim_of if action.manifest["kind"] == "PersistentVolumeClaim" else objects.owned_by
    if present is not None and is_own(present, owner_uid) and not objects.is_deleting(present):
        return None
    return Rejection(action.what, message, Reason.NAME_TAKEN)


async def _update(kube: Kube, action: Create, present: Object) -> None:
    """Change the spec of the object that is there. Without the right to, it stays as it is: the job does not wait."""
    if present.get("spec") == action.manifest["spec"]:
        return
    try:
        await kube.replace(action.manifest["kind"], {**present, "spec": action.manifest["spec"]})
    except ApiError as error:
        if error.code != 403:
            raise
        LOG.warning("%s cannot be brought up to date: %s", action.what, error.message)


async def record(kube: Kube, raw: Object, events: tuple[Event, ...], now: datetime) -> None:
    """Write Kubernetes events. Whatever goes wrong is only logged: the status says the same.

    When the API server does not answer, or asks for fewer requests, the rest of the events are dropped.
    """
    for event in events:
        try:
            await kube.create("Event", raw["metadata"]["namespace"], _manifest(raw, event, now))
        except Exception as error:  # noqa: BLE001 (an event is never worth a pass)
            LOG.warning("event %s of %s was not written: %s", event.reason, raw["metadata"]["name"], error)
            if isinstance(error, ApiError) and error.pushes_back:
                return


def _manifest(raw: Object, event: Event, now: datetime) -> dict[str, Any]:
    metadata = raw["metadata"]
    at = timestamp(now)
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
