"""How a pod ended, from its status as the kubelet writes it."""

from typing import Any

import pytest

from distill_api.constants import Phase
from distill_api.reasons import Reason
from distill_operator.kube.events import with_start_event
from distill_operator.kube.objects import Object, pod_facts
from distill_operator.plan.plan import make_plan
from distill_operator.types.observed import ContainerEnd
from tests.support.operator.samples import SETTINGS, at, attempt, child, job, observed, status

BEGAN, ENDED = "2026-11-23T12:00:05Z", "2026-11-23T12:00:10Z"
CREATED = "2026-11-23T11:00:00Z"


def exited(name: str, code: int, **fields: Any) -> Object:
    """The status of a container that ended."""
    terminated = {"exitCode": code, "reason": "Error", "startedAt": BEGAN, "finishedAt": ENDED, **fields}
    return {"name": name, "state": {"terminated": terminated}}


def waits(name: str, reason: str = "PodInitializing", **fields: Any) -> Object:
    return {"name": name, "state": {"waiting": {"reason": reason, **fields}}}


def raw(init: list[Object], main: list[Object], **spec: Any) -> Object:
    owner = {"uid": "job-1", "controller": True}
    labels = {"distilljob.dev/attempt": "1", "batch.kubernetes.io/job-completion-index": "0"}
    metadata = {"name": "tiny-a1-0", "uid": "p", "ownerReferences": [owner], "labels": labels}
    scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": BEGAN}
    state = {"phase": "Failed", "conditions": [scheduled], "initContainerStatuses": init, "containerStatuses": main}
    return {"metadata": {**metadata, "creationTimestamp": CREATED}, "spec": spec, "status": state}


FETCH = ContainerEnd("fetch", 3, at(10), "Error", init=True)
SIDECAR = {"initContainers": [{"name": "fetch", "restartPolicy": "Always"}]}
NEVER_RAN = {"startedAt": "1970-01-01T00:00:00Z", "reason": "ContainerStatusUnknown"}

ENDS: dict[str, tuple[ContainerEnd | None, list[Object], list[Object], dict[str, Any]]] = {
    "an init container fails": (FETCH, [exited("fetch", 3)], [waits("trainer")], {}),
    "the first of two fails": (FETCH, [exited("fetch", 3), waits("check")], [waits("trainer")], {}),
    "the second of two fails": (FETCH, [exited("check", 0), exited("fetch", 3)], [waits("trainer")], {}),
    "a trainer that never ran gets an end, too": (
        FETCH,
        [exited("fetch", 3)],
        [exited("trainer", 137, **NEVER_RAN)],
        {},
    ),
    "init containers are done": (
        ContainerEnd("trainer", 1, at(10), "Error"),
        [exited("fetch", 0)],
        [exited("trainer", 1)],
        {},
    ),
    "a sidecar fails": (None, [exited("fetch", 3)], [waits("trainer")], SIDECAR),
    "a sidecar is stopped after the trainer": (
        ContainerEnd("trainer", 1, at(10), "Error"),
        [exited("fetch", 143)],
        [exited("trainer", 1)],
        SIDECAR,
    ),
    "another container fails while the trainer runs": (
        ContainerEnd("logs", 2, at(10), "Error"),
        [],
        [{"name": "trainer", "state": {"running": {"startedAt": BEGAN}}}, exited("logs", 2)],
        {},
    ),
}


@pytest.mark.parametrize(("end", "init", "main", "spec"), ENDS.values(), ids=ENDS.keys())
def test_the_end_of_the_container_that_counts(
    end: ContainerEnd | None, init: list[Object], main: list[Object], spec: dict[str, Any]
) -> None:
    assert pod_facts(raw(init, main, **spec)).end == end


def test_a_container_that_could_not_be_started_says_why() -> None:
    why = 'exec: "trian": executable file not found in $PATH'
    dead = exited("trainer", 128, reason="StartError", startedAt="1970-01-01T00:00:00Z", message=why)
    assert pod_facts(raw([], [dead])).end == ContainerEnd("trainer", 128, at(10), "StartError", message=why)


def event(reason: str, message: str, time: str) -> Object:
    return {"reason": reason, "message": message, "lastTimestamp": f"2026-11-23T{time}Z"}


NO_SECRET = 'MountVolume.SetUp failed for volume "w" : secret "wandb" not found'
GENERIC = "Unable to attach or mount volumes: unmounted volumes=[w]: context deadline exceeded"
WARNINGS = {
    "none": ([], ("", "")),
    "of other kinds": ([event("Unhealthy", "probe failed", "12:00:00")], ("", "")),
    "the newest": (
        [event("FailedAttachVolume", "Multi-Attach error", "12:01:00"), event("FailedMount", NO_SECRET, "12:00:00")],
        ("FailedMount", NO_SECRET),
    ),
    "one with the cause, before a newer one without": (
        [event("FailedMount", GENERIC, "12:02:00"), event("FailedMount", NO_SECRET, "12:00:00")],
        ("FailedMount", NO_SECRET),
    ),
    "a cause that has not come back": (
        [event("FailedMount", NO_SECRET, "12:00:00"), event("FailedMount", GENERIC, "12:05:00")],
        ("FailedMount", GENERIC),
    ),
}


@pytest.mark.parametrize(("events", "told"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_a_pod_waits_for_by_its_events(events: list[Object], told: tuple[str, str]) -> None:
    found = with_start_event(pod_facts(raw([], [])), events)
    assert (found.waiting, found.waiting_message) == told


def test_only_the_trainers_termination_message_is_a_report() -> None:
    done = '{"outcome": "done", "reason": "Completed", "attempt": 1, "result": {"checkpoint": "x", "sha256": "y"}}'
    told = pod_facts(raw([], [exited("trainer", 0, message=done)])).end
    assert told is not None
    assert told.report is not None
    for forged in (raw([exited("fetch", 1, message=done)], []), raw([], [exited("logs", 1, message=done)])):
        end = pod_facts(forged).end
        assert end is not None
        assert end.report is None


def test_a_failed_init_container_is_a_failure_and_no_preemption() -> None:
    failed = pod_facts(raw([exited("fetch", 3)], [waits("trainer")]))
    starting = job(status(attempt(), phase=Phase.STARTING))
    exceeded = child(failing_at=at(11), failure_reason="BackoffLimitExceeded", failure_message="Job has failed")
    told = make_plan(observed(starting, failed, jobs=(exceeded,)), at(12), SETTINGS).status
    assert told is not None
    assert told.restarts == "1/0"
    assert told.attempts[0].reason == Reason.INIT_CONTAINER
    message = told.attempts[0].message or ""
    assert "init container fetch of pod tiny-a1-0" in message
    assert "(exit code 3)" in message


def test_an_image_of_an_init_container_is_waited_for_like_the_trainers() -> None:
    told = pod_facts(raw([waits("fetch", "ImagePullBackOff", message="no such image")], [waits("trainer")]))
    assert (told.waiting, told.waiting_message) == ("ImagePullBackOff", "no such image")
