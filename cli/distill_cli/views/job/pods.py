"""Training pods, and events, in few words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from distill_api.constants import TRAINER_CONTAINER, Label
from distill_client.apiserver.kinds import Object
from distill_client.client import event_time, node_rank
from distill_client.job import Job


@dataclass(frozen=True)
class PodRow:
    """One pod of the gang."""

    rank: int
    """Its index: ranks rank × processes per node and following are in it."""
    name: str
    node: str
    state: str
    detail: str
    """Why it does not run, or how its container ended."""
    ok: bool
    """Whether it runs and is ready, or has ended well."""


def pod_rows(pods: Iterable[Object], attempt: int) -> list[PodRow]:
    """The pods of an attempt, by index."""
    mine = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(Label.ATTEMPT) == str(attempt)]
    return [_row(pod) for pod in sorted(mine, key=node_rank)]


def _row(pod: Object) -> PodRow:
    status, metadata = pod.get("status") or {}, pod["metadata"]
    phase = str(status.get("phase") or "Pending")
    state, detail, ok = phase, "", phase == "Succeeded"
    container: Mapping[str, Any] = next(
        (c for c in status.get("containerStatuses") or () if c["name"] == TRAINER_CONTAINER), {}
    )
    waiting, ended = (container.get("state") or {}).get("waiting"), (container.get("state") or {}).get("terminated")
    scheduled = _condition(status, "PodScheduled")
    if metadata.get("deletionTimestamp"):
        state = "Terminating"
    elif ended:
        detail = f"exit code {ended.get('exitCode')}" if ended.get("exitCode") else ""
        detail = ended["reason"] if ended.get("reason") == "OOMKilled" else detail
    elif waiting:
        state, detail = str(waiting.get("reason") or phase), _line(waiting.get("message"))
    elif phase == "Pending" and scheduled.get("status") == "False":
        state, detail = str(scheduled.get("reason") or phase), _line(scheduled.get("message"))
    elif phase == "Running":
        ok = bool(container.get("ready", True))
        state = "Running" if ok else "not ready"
    return PodRow(
        rank=node_rank(pod),
        name=str(metadata["name"]),
        node=str((pod.get("spec") or {}).get("nodeName") or ""),
        state=state,
        detail=detail,
        ok=ok,
    )


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = next((c for c in status.get("conditions") or () if c.get("type") == kind), {})
    return found


@dataclass(frozen=True)
class EventRow:
    """One event."""

    at: datetime | None
    kind: str
    """Normal or Warning."""
    reason: str
    about: str
    message: str
    count: int

    @property
    def of_attempt(self) -> int | None:
        """The attempt whose Job or pod it is about, if any."""
        number = self.about.partition(" …a")[2].partition("-")[0]
        return int(number) if number.isdecimal() else None


def event_rows(events: Iterable[Object], job: str) -> list[EventRow]:
    """Events in the order given; `about` is empty for those of the job itself."""
    rows = []
    for event in events:
        what, at = event["involvedObject"], event_time(event)
        about = "" if what.get("kind") == "DistillJob" else f"{what.get('kind')} {what.get('name')}"
        count = int((event.get("series") or {}).get("count") or event.get("count") or 1)
        rows.append(
            EventRow(
                at=datetime.fromisoformat(at) if at else None,
                kind=str(event.get("type") or "Normal"),
                reason=str(event.get("reason") or ""),
                about=about.replace(f" {job}-a", " …a"),
                message=_line(event.get("message")),
                count=count,
            )
        )
    return rows


def telling(event: EventRow, pods: Iterable[PodRow]) -> bool:
    """Whether an event still says something: no failed probe of a rank that is starting, and nothing about where to put
    a pod that has a node by now.
    """
    if event.reason == "Unhealthy" and event.message.startswith("Readiness probe failed"):
        return False
    placed = {pod.name for pod in pods if pod.node}
    return event.reason != "FailedScheduling" or not any(
        name.endswith(event.about.partition("…")[2]) for name in placed
    )


def doomed(job: Job, claims: Iterable[Object]) -> dict[str, str]:
    """The job's claims that are being deleted, each with its volumes in the job, until the job has ended."""
    going = sorted(claim["metadata"]["name"] for claim in claims if claim["metadata"].get("deletionTimestamp"))
    uses = {name: ", ".join(volume for volume, used in job.claims.items() if used == name) for name in going}
    return {} if job.status.over else uses


def _line(text: object) -> str:
    return " ".join(str(text or "").split())
