"""Follows one job: watches its objects, and polls rank 0's status several times a second."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client, config, watch
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from distill_api.constants import GROUP, METRICS_PORT, PLURAL, VERSION, Label

POLL_SECONDS = 0.2
"""Interval of polling rank 0, and so the precision of the time of a first step."""
WATCH_SECONDS = 5
"""Duration of a watch, and so the delay when following ends."""
RANK = "batch.kubernetes.io/job-completion-index"


@dataclass
class Pod:
    """A pod of the job, with the times (time.time()) at which a watch reported its changes."""

    name: str
    uid: str
    attempt: int
    rank: int
    node: str = ""
    placed: float | None = None
    started: float | None = None
    """Its container is running."""
    deleted: float | None = None
    """It has a deletion timestamp."""
    ended: float | None = None
    """Its containers have ended, or it was removed."""


@dataclass(frozen=True)
class Sample:
    """One response of rank 0."""

    at: float
    attempt: int
    state: str
    step: int
    made: int
    """Steps of this attempt."""
    committed: int
    resumed_from: int | None
    seconds: dict[str, float]


@dataclass
class Seen:
    """All observations of one job."""

    job: dict[str, Any] = field(default_factory=dict)
    attempts: dict[int, dict[str, Any]] = field(default_factory=dict)
    """All entries of status.attempts by number; the status only keeps the newest ones."""
    created: dict[int, float] = field(default_factory=dict)
    """When the Job of each attempt was created."""
    pods: dict[str, Pod] = field(default_factory=dict)
    answered: dict[int, float] = field(default_factory=dict)
    """Time of rank 0's first response in each attempt."""
    stepped: dict[int, float] = field(default_factory=dict)
    """Time of the first observed step of each attempt."""
    samples: list[Sample] = field(default_factory=list)

    def gang(self, attempt: int) -> list[Pod]:
        """The attempt's pods by rank."""
        return sorted((pod for pod in list(self.pods.values()) if pod.attempt == attempt), key=lambda pod: pod.rank)

    @property
    def training(self) -> int | None:
        """The newest attempt that has made a step."""
        return max(list(self.stepped), default=None)  # a copy: another thread fills it

    @property
    def phase(self) -> str | None:
        """status.phase."""
        return self.job.get("status", {}).get("phase")

    @property
    def newest(self) -> Sample | None:
        """Rank 0's last response."""
        return self.samples[-1] if self.samples else None


class Follower:
    """Fills `seen` from background threads until the end of the `with` block."""

    def __init__(self, kubeconfig: Path, namespace: str, name: str) -> None:
        config.load_kube_config(config_file=str(kubeconfig))
        self._namespace, self._name = namespace, name
        self._core, self._batch, self._custom = client.CoreV1Api(), client.BatchV1Api(), client.CustomObjectsApi()
        self._over = threading.Event()
        self._threads = ThreadPoolExecutor()
        self._following: list[Future[None]] = []
        self.seen = Seen()

    def __enter__(self) -> Follower:
        follows = (self._jobs, self._children, self._pods, self._rank0)
        self._following = [self._threads.submit(follow) for follow in follows]
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._threads.shutdown()

    def check(self) -> None:
        """Raise RuntimeError if one of the threads has failed, because the observations are then incomplete."""
        for following in self._following:
            if following.done() and (error := following.exception()):
                raise RuntimeError(f"following the job failed: {error!r}") from error

    def _stream(self, listing: Callable[..., Any], **arguments: Any) -> Iterator[tuple[str, dict[str, Any], float]]:
        """Yield every change of the listed objects, including deletions between two watches."""
        known: dict[str, dict[str, Any]] = {}
        while not self._over.is_set():
            try:
                listed = json.loads(listing(_preload_content=False, _request_timeout=30, **arguments).data)
                now = {item["metadata"]["uid"]: item for item in listed["items"]}
                changes = [("DELETED", known[uid]) for uid in known.keys() - now.keys()]
                changes += [("MODIFIED", item) for item in now.values()]
                for kind, item in changes:
                    yield kind, item, time.time()
                known = now
                since = listed["metadata"]["resourceVersion"]
                limits = {"timeout_seconds": WATCH_SECONDS, "_request_timeout": 3 * WATCH_SECONDS}
                for event in watch.Watch().stream(listing, resource_version=since, **limits, **arguments):
                    kind, item = event["type"], event["raw_object"]
                    yield kind, item, time.time()
                    known[item["metadata"]["uid"]] = item
                    if kind == "DELETED":
                        del known[item["metadata"]["uid"]]
            except (ApiException, HTTPError, OSError, ValueError):  # ValueError: the response is incomplete
                self._over.wait(0.2)

    def _jobs(self) -> None:
        only = {"field_selector": f"metadata.name={self._name}"}
        listing = self._custom.list_namespaced_custom_object
        where = {"group": GROUP, "version": VERSION, "namespace": self._namespace, "plural": PLURAL}
        for kind, job, _ in self._stream(listing, **where, **only):
            if kind == "DELETED":
                continue
            self.seen.attempts |= {a["number"]: a for a in job.get("status", {}).get("attempts", [])}
            self.seen.job = job

    def _children(self) -> None:
        where = {"namespace": self._namespace, "label_selector": f"{Label.JOB}={self._name}"}
        for _, child, at in self._stream(self._batch.list_namespaced_job, **where):
            self.seen.created.setdefault(int(child["metadata"]["labels"].get(Label.ATTEMPT, 0)), at)

    def _pods(self) -> None:
        where = {"namespace": self._namespace, "label_selector": f"{Label.JOB}={self._name}"}
        for kind, raw, at in self._stream(self._core.list_namespaced_pod, **where):
            metadata, status = raw["metadata"], raw.get("status", {})
            labels = metadata["labels"]
            made = Pod(metadata["name"], metadata["uid"], int(labels[Label.ATTEMPT]), int(labels[RANK]))
            pod = self.seen.pods.setdefault(made.uid, made)
            pod.node = raw["spec"].get("nodeName", "")
            running = any("running" in one.get("state", {}) for one in status.get("containerStatuses", []))
            over = kind == "DELETED" or status.get("phase") in ("Succeeded", "Failed")
            now = {"placed": pod.node, "started": running, "deleted": metadata.get("deletionTimestamp"), "ended": over}
            for change, reached in now.items():
                if reached and getattr(pod, change) is None:
                    setattr(pod, change, at)

    def _rank0(self) -> None:
        while not self._over.wait(POLL_SECONDS):
            heads = [pod for pod in list(self.seen.pods.values()) if pod.rank == 0 and pod.started and not pod.ended]
            for pod in heads[-1:]:
                self._poll(pod)

    def _poll(self, pod: Pod) -> None:
        seen = self.seen
        try:
            response: Any = self._core.connect_get_namespaced_pod_proxy_with_path(
                f"{pod.name}:{METRICS_PORT}", self._namespace, "status", _preload_content=False, _request_timeout=2
            )
            status = json.loads(response.data)
            response.release_conn()
        except (ApiException, HTTPError, OSError, ValueError):  # rank 0 does not serve yet, or no longer
            return
        at, progress = time.time(), status.get("progress", {})
        sample = Sample(
            at,
            status["attempt"],
            status["state"],
            progress.get("step", 0),
            status.get("stepsThisAttempt", 0),
            progress.get("committedStep", 0),
            status.get("resumedFromStep"),
            status.get("seconds") or {},
        )
        seen.answered.setdefault(sample.attempt, at)
        if sample.made > 0:
            seen.stepped.setdefault(sample.attempt, at)
        seen.samples.append(sample)
