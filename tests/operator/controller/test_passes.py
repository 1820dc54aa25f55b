"""The thin parts of a pass: in what order it reads, and what it tells when an action fails."""

# ruff: noqa: ARG002 (the signatures are those of Kube)

import asyncio
from typing import Any

import kopf
import pytest

from distill_api.constants import COMPLETION_INDEX, Label
from distill_api.job import DistillJob
from distill_api.reasons import Reason
from distill_operator.controller import handlers
from distill_operator.controller.rank0.poller import Poller
from distill_operator.controller.reconcile import Reconciler
from distill_operator.controller.telemetry.metrics import Metrics
from distill_operator.kube.answers import NO_ANSWER, ApiError
from distill_operator.kube.apply import act
from distill_operator.kube.client import Kube
from distill_operator.kube.objects import Object, claim_facts, pod_facts
from distill_operator.kube.observe import Observer
from distill_operator.kube.pod_cache import PodCache
from distill_operator.types.actions import Create, Reserve
from tests.support.operator.samples import SETTINGS, UID, at, attempt, job, status
from tests.support.operator.server import KEY, Server, nobody


def run_pass(server: Server, seconds: float = 0) -> None:
    async def story() -> None:
        poller = Poller(nobody, lambda _: None, SETTINGS.poll)
        observer = Observer(server, PodCache(), SETTINGS.resync, lambda: at(seconds))
        await Reconciler(server, observer, SETTINGS, Metrics(), poller, lambda: at(seconds)).reconcile(KEY, True)
        await poller.stop()

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


@pytest.mark.parametrize(
    "error",
    [
        ApiError(429, "", "Too many requests, please try again later.", retry_after=1.0),
        ApiError(403, "Forbidden", 'events is forbidden: User "a" cannot create resource "events"'),
        ApiError(NO_ANSWER, "Timeout", "no answer"),
        ValueError("not foreseen"),
    ],
)
def test_an_event_that_cannot_be_written_fails_no_pass(error: Exception, caplog: pytest.LogCaptureFixture) -> None:
    server = Server(job(), {"Event": error})
    run_pass(server)
    assert server.raw["status"]["attempt"] == 1
    assert "event AttemptCreated of tiny was not written" in caplog.text


def test_the_pass_that_sees_the_last_of_an_attempt_starts_the_next_one() -> None:
    ended = attempt(running_at=at(0), reason=Reason.PREEMPTED, ended_at=at(0), job_uid="job-1")
    server = Server(job(status(ended)), {})
    run_pass(server)
    assert [(a["number"], a["outcome"]) for a in server.raw["status"]["attempts"]] == [(1, "Disrupted"), (2, "Running")]


def child_of_attempt_1(rank: int, **status_: Any) -> Object:
    """A pod as the API server has it."""
    owner = {"kind": "Job", "name": "tiny-a1", "uid": "job-1", "controller": True}
    labels = {Label.JOB: "tiny", Label.ATTEMPT: "1", COMPLETION_INDEX: str(rank)}
    metadata = {"name": f"tiny-a1-{rank}", "uid": f"pod-{rank}", "ownerReferences": [owner], "labels": labels}
    return {"metadata": {**metadata, "creationTimestamp": "2026-11-23T11:00:00Z"}, "spec": {}, "status": status_}


class Policies(Kube):
    """An API server that has a NetworkPolicy already, and may refuse to change it."""

    def __init__(self, present: Object, refusal: ApiError | None = None) -> None:
        self.present = present
        self.refusal = refusal

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        raise ApiError(409, "AlreadyExists", f"{kind} already exists")

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        return self.present

    async def replace(self, kind: str, obj: Object) -> Object:
        if self.refusal is not None:
            raise self.refusal
        self.present = obj
        return obj


def policy_of(uid: str, **spec: Any) -> Object:
    owner = {"uid": uid, "controller": True}
    metadata = {"name": "tiny", "namespace": "team", "resourceVersion": "7", "ownerReferences": [owner]}
    return {"kind": "NetworkPolicy", "metadata": metadata, "spec": spec}


@pytest.mark.parametrize(
    ("uid", "update", "refusal", "spec"),
    [
        (UID, True, None, {"new": True}),
        (UID, False, None, {"old": True}),
        ("another", True, None, {"old": True}),
        (UID, True, ApiError(403, "Forbidden", "cannot update resource"), {"old": True}),
    ],
    ids=["updated", "only created", "another's", "without the right to"],
)
def test_a_policy_of_an_earlier_configuration_is_changed(
    uid: str, update: bool, refusal: ApiError | None, spec: dict[str, Any]
) -> None:
    server = Policies(policy_of(uid, old=True), refusal)
    wanted = {**policy_of(UID, new=True), "metadata": {"name": "tiny"}}
    rejection = asyncio.run(act(server, "team", UID, (Create(wanted, update=update),)))
    assert (rejection is None) == (uid == UID)
    assert server.present == policy_of(uid, **spec), "resourceVersion and owner are kept"


class Older(Server):
    """An API server whose feature gate ImageVolume is off: it drops such volumes and says nothing, as Kubernetes."""

    def __init__(self, *, drops: bool) -> None:
        super().__init__(job(), {})
        self.drops, self.made = drops, 0

    async def try_create(self, kind: str, namespace: str, manifest: Object) -> Object:
        return {**manifest, "spec": {"template": {"spec": {"volumes": []}}}} if self.drops else manifest

    async def create(self, kind: str, namespace: str, manifest: Object) -> Object:
        self.made += 1
        return manifest


@pytest.mark.parametrize("drops", [True, False])
def test_no_pod_is_made_whose_image_volume_would_be_dropped(drops: bool) -> None:
    volumes = [{"name": "data", "image": {"reference": "coco:1"}}, {"name": "tmp", "emptyDir": {}}]
    manifest = {"kind": "Job", "metadata": {"name": "tiny-a1"}, "spec": {"template": {"spec": {"volumes": volumes}}}}
    server = Older(drops=drops)
    rejection = asyncio.run(act(server, "team", UID, (Create(manifest),)))
    assert (server.made, rejection is not None) == (0 if drops else 1, drops)
    if rejection is not None:
        assert rejection.reason == Reason.NOT_ADMITTED
        assert "this cluster has no image volumes, so the API server drops the volume data;" in rejection.message


def test_a_webhook_that_is_away_is_a_refusal_and_no_error_of_the_operator() -> None:
    away = ApiError(500, "InternalError", 'Internal error occurred: failed calling webhook "w": refused')
    manifest = {"kind": "Job", "metadata": {"name": "tiny-a1"}}
    rejection = asyncio.run(act(Server(job(), {"Job": away}), "team", UID, (Create(manifest),)))
    assert rejection is not None
    assert rejection.reason == Reason.NOT_ADMITTED


ALREADY_EXISTS = ApiError(409, "AlreadyExists", 'object is being deleted: services "tiny-a1" already exists')


@pytest.mark.parametrize(
    ("fields", "waits"),
    [
        ({}, False),
        ({"deletionTimestamp": "2026-11-23T11:00:00Z"}, True),
        ({"ownerReferences": []}, True),
        (None, True),
    ],
    ids=["ours", "ours, but it goes", "another's", "gone meanwhile"],
)
def test_a_name_that_is_taken_is_ours_only_if_its_object_stays(fields: dict[str, Any] | None, waits: bool) -> None:
    """Else the attempt would start without its Service."""

    class Taken(Server):
        async def get(self, kind: str, namespace: str, name: str) -> Object | None:
            owned: Object = {"name": name, "ownerReferences": [{"uid": UID, "controller": True}]}
            return None if fields is None else {"metadata": {**owned, **fields}}

    create = Create({"kind": "Service", "metadata": {"name": "tiny-a1"}})
    rejection = asyncio.run(act(Taken(job(), {"Service": ALREADY_EXISTS}), "team", UID, (create,)))
    assert (rejection.reason if rejection else None) == (Reason.NAME_TAKEN if waits else None)


def test_a_permission_that_the_operator_lacks_is_shown_in_the_job() -> None:
    text = 'jobs.batch is forbidden: User "operator" cannot create resource "jobs" in API group "batch"'
    server = Server(job(), {"Job": ApiError(403, "Forbidden", text)})
    run_pass(server)
    assert server.raw["status"]["waiting"]["reason"] == Reason.NOT_ADMITTED
    assert text in server.raw["status"]["waiting"]["message"]


class Queue(Kube):
    """An API server that may refuse to change the pods of a Job, or have another Job of the name."""

    def __init__(self, error: ApiError | None) -> None:
        self.error = error
        self.done: list[str] = []

    async def label_next_pods(self, namespace: str, name: str, uid: str, labels: dict[str, str]) -> None:
        if self.error is not None:
            raise self.error
        self.done.append(f"{name} {labels[Label.ATTEMPT]} {labels[Label.COMMITTED_STEP]}")


@pytest.mark.parametrize(
    ("error", "done"),
    [
        (None, ["tiny-a1 2 40"]),
        (ApiError(422, "Invalid", 'Job "tiny-a1" is invalid: field is immutable'), []),
        (ApiError(409, "Conflict", "the UID in the precondition does not match"), []),
        (ApiError(404, "NotFound", "not found"), []),
    ],
)
def test_a_job_that_cannot_be_reserved_yet_fails_no_pass(error: ApiError | None, done: list[str]) -> None:
    queue = Queue(error)
    assert asyncio.run(act(queue, "team", UID, (Reserve("tiny-a1", "job-1", 2, committed_step=40),))) is None
    assert queue.done == done


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


SCHEDULED = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-11-23T11:59:00Z"}
READY = {"type": "PodReadyToStartContainers", "status": "True"}
CREATING = [{"name": "trainer", "state": {"waiting": {"reason": "ContainerCreating"}}}]
NO_KEY = [{"name": "trainer", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": "no key"}}}]


@pytest.mark.parametrize(
    ("conditions", "containers", "seconds", "reason"),
    [
        ([SCHEDULED], CREATING, 0, Reason.POD_CANNOT_START),
        ([SCHEDULED], CREATING, -45, Reason.PODS_STARTING),
        ([SCHEDULED, READY], CREATING, 0, Reason.PODS_STARTING),
        ([], CREATING, 0, Reason.PODS_STARTING),
        ([SCHEDULED], NO_KEY, 0, Reason.POD_CANNOT_START),
    ],
    ids=["slow", "new", "mounted", "no node", "its status tells"],
)
def test_events_tell_what_a_pod_with_a_node_waits_for(
    conditions: list[Object], containers: list[Object], seconds: float, reason: Reason
) -> None:
    server = Server(job(status(attempt())), {})
    pods = [
        child_of_attempt_1(rank, phase="Pending", conditions=conditions, containerStatuses=containers)
        for rank in range(2)
    ]
    mount = {"reason": "FailedMount", "message": 'secret "wandb" not found', "lastTimestamp": "2026-11-23T11:59:30Z"}
    server.listed = {"Job": [JOB_1], "Pod": pods, "Event": [mount]}
    run_pass(server, seconds)
    (running,) = [c for c in server.raw["status"]["conditions"] if c["type"] == "Running"]
    assert running["reason"] == reason
    assert ("Event" in server.asked) == ('secret "wandb" not found' in running["message"])


def test_a_job_that_its_queue_holds_shows_no_former_refusal() -> None:
    server = Server(job(status(attempt(admitted_at=None))), {})
    refused = {"message": "Error creating: exceeded quota: small", "lastTimestamp": "2026-11-23T10:00:00Z"}
    server.listed = {"Job": [{**JOB_1, "spec": {"suspend": True}}], "Event": [refused]}
    run_pass(server)
    assert (server.raw["status"]["phase"], server.raw["status"].get("waiting")) == ("Queued", None)


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


@pytest.mark.parametrize(("owners", "own"), [([], True), ([{"uid": "another", "controller": True}], False)])
def test_a_retained_claim_is_known_by_its_label(owners: list[Object], own: bool) -> None:
    metadata = {"name": "c", "labels": {"distilljob.dev/uid": UID}, "ownerReferences": owners}
    claim = {"metadata": metadata, "spec": {}}
    assert claim_facts(claim, UID).owned == own
    assert not claim_facts(claim, "a job that was made again").owned


def test_the_clock_of_a_pod_starts_with_its_container() -> None:
    running = {"name": "trainer", "state": {"running": {"startedAt": "2026-11-23T12:00:00Z"}}}
    raw = {
        "metadata": {"name": "p", "uid": "u", "creationTimestamp": "2026-11-23T11:00:00Z"},
        "status": {"phase": "Running", "containerStatuses": [running]},
    }
    assert pod_facts(raw).started_at == at(0)
    assert pod_facts({**raw, "status": {"phase": "Running"}}).started_at is None
