"""Watches DistillJobs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

from distill_api.constants import KIND
from distill_client.apiserver.connection import Connection
from distill_client.apiserver.kinds import path
from distill_client.apiserver.patience import RETRY_SECONDS, Patience
from distill_client.errors import Unreachable
from distill_client.job import Job

_WATCH_SECONDS: Final = 300.0


def watch(connection: Connection, name: str | None, deadline: float) -> Iterator[Job]:
    """Each state of the job, or of all jobs of the namespace, until the job that `name` names is deleted, or up to
    `deadline`, by time.monotonic. An API server that is away for some minutes ends nothing.
    """
    patience, where = Patience(), path(KIND, connection.namespace)
    selected = {"fieldSelector": f"metadata.name={name}"} if name else {}
    while (left := min(deadline - time.monotonic(), _WATCH_SECONDS)) > 0:
        found = patience.read(lambda: connection.request("GET", where, query=selected), deadline)
        yield from (Job(item) for item in found["items"])
        if name and not found["items"]:
            return
        query = {
            **selected,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": found["metadata"]["resourceVersion"],
            "timeoutSeconds": str(max(1, round(left))),
        }
        try:
            for line in connection.lines(where, query, idle=left + 10):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    break  # the version is too old: list again
                if event["type"] == "DELETED" and name:
                    return
                if event["type"] in ("ADDED", "MODIFIED"):
                    yield Job(event["object"])
        except Unreachable:  # listing again finds out for how long
            time.sleep(RETRY_SECONDS)
