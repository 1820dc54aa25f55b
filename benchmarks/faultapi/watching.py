"""Watches the API server beside the operator, and says when a promise is broken at any moment of a job's life."""

import threading
import time
from collections.abc import Callable

from distill_api.constants import Label
from tests.support.apiserver.api import Api, Object

WATCH_SECONDS = 5
LIVE = ("Pending", "Running")


class Watcher:
    """Sees every change of the pods and DistillJobs of a namespace, as a context manager."""

    def __init__(self, api: Api, ns: str) -> None:
        self._api, self._ns = api, ns
        self._stop = threading.Event()
        self._follow = [
            threading.Thread(target=self._watch, args=args, daemon=True)
            for args in (("Pod", self._pod), ("DistillJob", self._job))
        ]
        self._live: dict[str, str] = {}
        self._ended: dict[tuple[str, int], tuple[str, str]] = {}
        self._counts: dict[str, tuple[int, int, int]] = {}
        self.deleted: set[str] = set()
        """UIDs of DistillJobs whose deletion was seen."""
        self.broken: list[str] = []
        """Promises that were broken since `begin`."""

    def __enter__(self) -> "Watcher":
        for thread in self._follow:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._follow:
            thread.join()

    def begin(self) -> None:
        """Forget what was broken before."""
        self.broken = []

    def _watch(self, kind: str, note: Callable[[str, Object], None]) -> None:
        since = ""
        while not self._stop.is_set():
            try:
                if not since:
                    listed = self._api.request("GET", self._api.path(kind, self._ns))
                    since = listed["metadata"]["resourceVersion"]
                for event in self._api.watch(kind, self._ns, since, WATCH_SECONDS):
                    if event["type"] == "ERROR":
                        since = ""
                        break
                    since = event["object"]["metadata"]["resourceVersion"]
                    if event["type"] != "BOOKMARK":
                        note(event["type"], event["object"])
            except (OSError, ValueError):  # the API server is away, or was stopped in the middle of an event
                time.sleep(0.2)

    def _pod(self, event: str, pod: Object) -> None:
        metadata, phase = pod["metadata"], (pod.get("status") or {}).get("phase")
        attempt = (metadata.get("labels") or {}).get(Label.ATTEMPT)
        if attempt is None:
            return
        if event != "DELETED" and phase in LIVE:
            self._live[metadata["uid"]] = f"{metadata['labels'][Label.UID]}, attempt {attempt}"
        else:
            self._live.pop(metadata["uid"], None)
        gangs = sorted(set(self._live.values()))
        if len(gangs) > 1:
            self.broken.append(f"two gangs live at the same time: {' and '.join(gangs)}")

    def _job(self, event: str, job: Object) -> None:
        uid, status = job["metadata"]["uid"], job.get("status") or {}
        if event == "DELETED":
            self.deleted.add(uid)
            return
        before = self._counts.get(uid, (0, 0, 0))
        now = tuple(int(status.get(name) or 0) for name in ("attempt", "failures", "preemptions"))
        if any(a < b for a, b in zip(now, before, strict=True)):
            self.broken.append(f"attempt, failures or preemptions went back from {before} to {now}")
        self._counts[uid] = now[0], now[1], now[2]
        for attempt in status.get("attempts") or ():
            if attempt["outcome"] == "Running":
                continue
            end = (attempt["outcome"], str(attempt.get("reason")))
            if self._ended.setdefault((uid, attempt["number"]), end) != end:
                known = self._ended[uid, attempt["number"]]
                self.broken.append(f"the end of attempt {attempt['number']} changed from {known} to {end}")
