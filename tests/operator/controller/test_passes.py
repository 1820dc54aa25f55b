"""The thin parts of a pass: in what order it reads, and what it tells when an action fails."""

# ruff: noqa: ARG002 (the signatures are those of Kube)

import asyncio
import socket
import time
from typing import Any

import aiohttp
import kopf
import pytest

from distill_api.constants import KIND, Label
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_operator.controller import handlers
from distill_operator.controller.metrics import Metrics
from distill_operator.controller.reconcile import Reconciler
from distill_operator.kube.apply import act
from distill_operator.kube.client import ApiError, Kube
from distill_operator.kube.objects import COMPLETION_INDEX, Object, claim_facts, pod_facts
from distill_operator.kube.observe import STATUS_SECONDS, Observer
from distill_operator.kube.pod_cache import PodCache
from distill_operator.types import naming
from distill_operator.types.actions import Create
from tests.support.operator.samples import SETTINGS, UID, at, attempt, closed, job, status

KEY = ("team", "tiny")


class Server(Kube):
    """An API server that holds one DistillJob and the user's claims, and refuses what it is told to refuse."""

    def __init__(self, of: DistillJob, refused: dict[str, ApiError]) -> None:
        self.raw: Object = {**of.to_wire(), "status": of.status.to_wire()}
        self.raw["metadata"] |= {"resourceVersion": "1"}
        self.refused = refused
        self.asked: list[str] = []
        self.listed: dict[str, list[Object]] = {}
        self.events: list[str] = []

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        if kind == KIND:
            return self.raw
        return {"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteMany"]}, "status": {"phase": "Bound"}}

    async def list(self, kind: str, namespace: str, **selectors: str) -> list[Object]:
        self.asked.append(kind)
        await asyncio.sleep(0)
        self.asked.append(f"{kind} answered")
        return self.listed.get(kind, [])

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        if kind in self.refused:
            raise self.refused[kind]
        if kind == "Event":
            self.events.append(manifest["reason"])
        return manifest

    async def replace_status(self, kind: str, obj: Object) -> Object:
        self.raw = obj
        return obj


def run_pass(server: Server) -> None:
    async def story() -> None:
        async with aiohttp.ClientSession() as http:
            observer = Observer(server, PodCache(), http, SETTINGS.resync)
            await Reconciler(server, observer, SETTINGS, Metrics(), lambda: at(0)).reconcile(KEY, True)

    asyncio.run(story())


def test_pods_are_listed_after_jobs_so_that_no_pod_of_a_job_is_missed() -> None:
    server = Server(job(), {})
    run_pass(server)
    assert server.asked.index("Job answered") < server.asked.index("Pod")


def test_a_transition_that_is_stored_is_told_although_its_actions_fail() -> None:
    server = Server(job(), {"Job": ApiError(500, "InternalError", "etcd is away")})
    with pytest.raises(ApiError, match="etcd is away"):
        run_pass(server)
    assert server.raw["status"]["attempt"] == 1
    assert server.events == ["AttemptCreated"]


def test_the_pass_that_sees_the_last_of_an_attempt_starts_the_next_one() -> None:
    ended = attempt(running_at=at(0), reason=Reason.PREEMPTED, ended_at=at(0), job_uid="job-1")
    server = Server(job(status(ended)), {})
    run_pass(server)
    assert [(a["number"], a["outcome"]) for a in server.raw["status"]["attempts"]] == [(1, "Disrupted"), (2, "Running")]


def child_of_attempt_1(rank: int, **status_: Any) -> Object:
    """A pod as the API server has it."""
    owner = {"uid": "job-1", "controller": True}
    labels = {Label.JOB: "tiny", Label.ATTEMPT: "1", COMPLETION_INDEX: str(rank)}
    metadata = {"name": f"tiny-a1-{rank}", "uid": f"pod-{rank}", "ownerReferences": [owner], "labels": labels}
    return {"metadata": {**metadata, "creationTimestamp": "2026-11-23T11:00:00Z"}, "spec": {}, "status": status_}


def test_a_rank_0_that_may_be_gone_with_the_others_holds_no_pass_up(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server(job(status(attempt(running_at=at(0), job_uid="job-1"))), {})
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        monkeypatch.setattr(naming, "status_url", lambda ip: f"http://{ip}:{port}/status")
        seconds = []
        for phase in ("Running", "Failed"):
            running = child_of_attempt_1(0, phase="Running", podIP="127.0.0.1")
            server.listed = {"Job": [JOB_1], "Pod": [running, child_of_attempt_1(1, phase=phase)]}
            began = time.monotonic()
            run_pass(server)
            seconds.append(time.monotonic() - began)
    assert seconds[1] < 0.9 * STATUS_SECONDS < seconds[0]


def test_a_webhook_that_is_away_is_a_refusal_and_no_error_of_the_operator() -> None:
    away = ApiError(500, "InternalError", 'Internal error occurred: failed calling webhook "w": refused')
    manifest = {"kind": "Job", "metadata": {"name": "tiny-a1"}}
    rejection = asyncio.run(act(Server(job(), {"Job": away}), "team", UID, (Create(manifest),)))
    assert rejection is not None
    assert rejection.reason == Reason.NOT_ADMITTED


JOB_1: Object = {
    "metadata": {
        "name": "tiny-a1",
        "uid": "job-1",
        "creationTimestamp": "2026-11-23T11:00:00Z",
        "ownerReferences": [{"uid": UID, "controller": True}],
        "labels": {Label.ATTEMPT: "1"},
    }
}


def refused_pods(**fields: Any) -> Object:
    """The status after a pass over an attempt whose second pod does not exist, and about which events tell."""
    server = Server(job(status(attempt(**fields))), {})
    texts = {"10:02:00": "exceeded quota: small", "10:03:00": 'admission webhook "w" denied the request: no'}
    events = [{"message": f"Error creating: {text}", "lastTimestamp": f"2026-11-23T{t}Z"} for t, text in texts.items()]
    server.listed = {"Job": [JOB_1], "Pod": [child_of_attempt_1(0, phase="Pending")], "Event": events[::-1]}
    run_pass(server)
    return dict(server.raw["status"])


def test_the_newest_event_about_refused_pods_is_told() -> None:
    told = refused_pods()
    assert told["waiting"]["reason"] == Reason.NOT_ADMITTED
    assert "denied the request: no" in told["waiting"]["message"]


def test_a_pod_that_is_missing_from_a_gang_that_was_whole_was_not_refused() -> None:
    assert "waiting" not in refused_pods(scheduled_at=at(0))


def test_a_missing_priority_class_is_named_with_what_to_do() -> None:
    gone = ApiError(403, "Forbidden", 'pods "x" is forbidden: no PriorityClass with name urgent was found')
    server = Server(job(), {"Job": gone})
    run_pass(server)
    (running,) = [c for c in server.raw["status"]["conditions"] if c["type"] == "Running"]
    assert (server.raw["status"]["phase"], running["reason"]) == ("Pending", "NotAdmitted")
    assert "the PriorityClass in spec.scheduling.priorityClassName does not exist; create it" in running["message"]


def test_only_children_of_distilljobs_are_asked_for() -> None:
    settings = kopf.OperatorSettings()
    handlers.configure(settings)
    for group, plural in (("batch", "jobs"), ("", "pods")):
        resource: Any = kopf.Resource(group=group, version="v1", plural=plural, namespaced=True)
        assert list(settings.watching.label_selectors.collect(resource)) == ["distilljob.dev/job"]
    jobs: Any = kopf.Resource(group="distilljob.dev", version="v1alpha1", plural="distilljobs", namespaced=True)
    assert list(settings.watching.label_selectors.collect(jobs)) == []


def restart_count(metrics: Metrics) -> float:
    return metrics.registry.get_sample_value("distill_operator_restart_seconds_count") or 0.0


@pytest.mark.parametrize(("reason", "count"), [(Reason.PREEMPTED, 1), (Reason.SUSPENDED_BY_USER, 0)])
def test_the_time_of_a_restart_leaves_out_suspensions(reason: Reason, count: int) -> None:
    metrics = Metrics()
    before, after = (status(closed(1, reason), attempt(2, running_at=at_)) for at_ in (None, at(9)))
    metrics.transition(KEY, before, after)
    assert restart_count(metrics) == count


@pytest.mark.parametrize("name", ["1st", "a.b", "A", "-a", "a-"])
def test_a_name_that_no_service_could_have_is_refused(name: str) -> None:
    document = job().to_wire()
    document["metadata"] = {"name": name}
    with pytest.raises(ValueError, match=r"metadata\.name"):
        DistillJob.model_validate(document)


def test_a_claim_tells_its_owner_and_that_it_goes() -> None:
    owner = {"uid": UID, "controller": True}
    claim = {"metadata": {"name": "c", "ownerReferences": [owner]}, "spec": {}}
    assert claim_facts(claim, UID).owned
    assert not claim_facts(claim, "another").owned
    claim["metadata"] |= {"deletionTimestamp": "2026-11-23T12:00:00Z"}
    assert claim_facts(claim, UID).deleting


def test_the_clock_of_a_pod_starts_with_its_container() -> None:
    running = {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}
    raw = {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-11-23T11:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": [running]},
    }
    assert pod_facts(raw).started_at == at(0)
    assert pod_facts({**raw, "status": {"phase": "Running"}}).started_at is None
