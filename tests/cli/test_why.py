"""`distill why`: the recorded reason, in sentences with its remedy."""

from datetime import timedelta
from typing import Any

import pytest

from distill_api.reasons import Reason
from distill_cli.screens.why import why
from distill_cli.views.job.curves import Curves
from distill_cli.views.job.finding import Finding
from distill_cli.views.job.status import status_view
from distill_cli.views.job.why import remedy, why_view
from distill_client import Job
from tests.support.cli.stored import ALL, NOW, drawn, stored


def findings(job: Job, pods: list[Any] | None = None, events: list[Any] | None = None) -> list[Finding]:
    return why_view(job, pods or [], events or [], NOW).findings


@pytest.mark.parametrize("name", ALL)
def test_every_stored_job_has_an_answer(name: str) -> None:
    job = stored(name)
    found = findings(job)
    assert found
    assert drawn(why(why_view(job, [], [], NOW)))


def test_a_failed_job_says_the_cause_and_the_remedy() -> None:
    first = findings(stored("failed"))[0]
    assert (first.title, first.reason, first.bad) == ("The job failed.", "ConfigInvalid", True)
    assert first.says == Reason.CONFIG_INVALID.facts.cause
    assert first.todo.startswith(Reason.CONFIG_INVALID.facts.remedy)


def test_a_cause_is_explained_once() -> None:
    state, *_, ended = findings(stored("suspended"))
    assert (state.reason, ended.reason) == ("SuspendedByUser", "SuspendedByUser")
    assert state.todo == Reason.SUSPENDED_BY_USER.facts.remedy
    assert ended.says.startswith("The cause is above.")
    assert ended.todo == ""


def test_an_end_says_what_was_lost_and_what_it_is_charged_to() -> None:
    ended = next(f for f in findings(stored("running")) if f.title.startswith("Attempt 1"))
    assert ended.title == "Attempt 1 ended after 16s."
    assert ended.says.endswith(
        "It had committed step 6. 3 steps had to be repeated. It counts as a failure (spec.recovery.maxFailures)."
    )
    assert "was killed for memory" in ended.evidence[0]


def test_an_end_says_what_the_restart_took_its_time_for() -> None:
    ended = next(f for f in findings(stored("running")) if f.title.startswith("Attempt 1"))
    took = "43s until attempt 2 trained: 37s until the next attempt, 3s waiting for nodes, 3s starting"
    assert ended.evidence[-1] == took
    newest = stored("running").raw["status"]["attempts"]
    starting = [newest[0], {key: value for key, value in newest[1].items() if key != "runningAt"}]
    ended = next(f for f in findings(stored("running", attempts=starting)) if f.title.startswith("Attempt 1"))
    assert "until attempt 2" not in " ".join(ended.evidence)


def test_what_a_job_waits_for_is_told_with_since_when() -> None:
    since = (NOW - timedelta(seconds=50)).isoformat()
    waiting = {"reason": "QuotaExceeded", "message": "quota gpus is used up", "since": since}
    first = findings(stored("starting", phase="Pending", waiting=waiting))[0]
    assert (first.title, first.reason) == ("The job waits.", "QuotaExceeded")
    assert first.says.endswith("It has waited for 50s.")
    assert first.evidence == ["quota gpus is used up"]


def test_a_back_off_says_when_it_ends() -> None:
    at = (NOW + timedelta(seconds=90)).isoformat()
    first = findings(stored("terminating", nextAttemptAt=at))[0]
    assert first.title == "The job recovers; the next attempt starts in 1m30s."


def test_an_operator_that_is_silent_is_named_first() -> None:
    job = stored("running")
    changed = Job({**job.raw, "metadata": {**job.raw["metadata"], "generation": 3}})
    assert findings(changed)[0].title == "The last change is not in effect yet."
    unseen = Job({**job.raw, "status": {"observedGeneration": -1}})
    (only,) = findings(unseen)
    assert only.title == "The operator is not answering."
    assert "distill doctor" in only.todo
    fresh = Job({**unseen.raw, "metadata": {**unseen.raw["metadata"], "creationTimestamp": NOW.isoformat()}})
    assert not findings(fresh)[0].bad


def test_while_starting_pods_and_warnings_are_evidence() -> None:
    labels = {"distilljob.dev/attempt": "1", "batch.kubernetes.io/job-completion-index": "0"}
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pod = {
        "metadata": {"name": "tiny-a1-0", "labels": labels},
        "spec": {},
        "status": {"phase": "Pending", "containerStatuses": [waiting]},
    }
    event = {
        "metadata": {},
        "involvedObject": {"kind": "Pod", "name": "tiny-a1-0"},
        "type": "Warning",
        "reason": "Failed",
        "message": "Error: ErrImagePull",
    }
    evidence = findings(stored("starting"), [pod], [event])[0].evidence
    assert evidence[1:] == [
        "pod tiny-a1-0: ImagePullBackOff: no such image",
        "Pod …a1-0: Failed: Error: ErrImagePull",
    ]


def starting_pod(rank: int, **status: Any) -> dict[str, Any]:
    labels = {"distilljob.dev/attempt": "1", "batch.kubernetes.io/job-completion-index": str(rank)}
    return {"metadata": {"name": f"tiny-a1-{rank}", "labels": labels}, "spec": {}, "status": status}


def warning(about: str, reason: str, message: str) -> dict[str, Any]:
    return {"metadata": {}, "involvedObject": {"kind": "Pod", "name": about}, "type": "Warning", "reason": reason,
            "message": message}  # fmt: skip


def test_what_several_pods_wait_for_is_said_once() -> None:
    waiting = {"name": "trainer", "state": {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}}
    pods = [starting_pod(rank, phase="Pending", containerStatuses=[waiting]) for rank in range(10)]
    evidence = findings(stored("starting"), pods)[0].evidence
    assert evidence[1:] == ["pods 0, 1, 2, 3, 4, 5, 6, 7, …: ImagePullBackOff: no such image"]
    said = evidence[0]
    blocked = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": said[-20:]}
    pods = [starting_pod(rank, phase="Pending", conditions=[blocked]) for rank in range(2)]
    assert findings(stored("starting"), pods)[0].evidence == [said]


def test_warnings_that_are_over_are_no_evidence() -> None:
    placed = starting_pod(0, phase="Running")
    placed["spec"]["nodeName"] = "node0"
    over = [warning("tiny-a1-0", "FailedScheduling", "0/2 nodes are available"),
            warning("tiny-a1-0", "Unhealthy", "Readiness probe failed: connection refused")]  # fmt: skip
    open_yet = warning("tiny-a1-1", "FailedScheduling", "0/2 nodes are available")
    evidence = findings(stored("starting"), [placed], [*over, open_yet])[0].evidence
    assert evidence[1:] == ["Pod …a1-1: FailedScheduling: 0/2 nodes are available"]


def test_warnings_of_earlier_attempts_are_no_evidence_of_this_one() -> None:
    events = [warning("tiny-a1-0", "Failed", "of this attempt"), warning("tiny-a2-0", "Failed", "of another")]
    assert findings(stored("starting"), [], events)[0].evidence[1:] == ["Pod …a1-0: Failed: of this attempt"]


def test_a_failed_job_says_how_to_run_it_again_and_that_no_retry_helps() -> None:
    job = stored("failed")
    first, attempt, *_ = findings(job)
    assert "distill restart tiny --as NAME" in first.todo
    assert "a retry cannot fix it" in attempt.says
    assert job.status.attempts[-1].message not in attempt.evidence, "it is said above"


def test_a_claim_that_is_being_deleted_is_said_before_it_hurts() -> None:
    job = stored("running")
    claims = [{"metadata": {"name": name}} for name in job.claims.values()]
    assert job.claims["checkpoints"]
    assert not any("claim" in found.title for found in why_view(job, [], [], NOW, claims=claims).findings)
    claims[0]["metadata"]["deletionTimestamp"] = NOW.isoformat()
    first = why_view(job, [], [], NOW, claims=claims).findings[0]
    assert (first.title, first.bad, "Retain" in first.todo) == ("A claim is being deleted.", True, True)
    notes = status_view(job, [], [], Curves(), NOW, claims=claims).notes
    assert notes == [f"claim {job.claims['checkpoints']} is being deleted (checkpoints)"]


def test_slow_is_explained_by_where_the_time_went() -> None:
    goodput = {
        "productiveSeconds": 400.0,
        "restartSeconds": 500.0,
        "waitingForCapacitySeconds": 100.0,
        "ratio": 0.4,
        "accountedUntil": NOW.isoformat(),
    }
    slow = next(f for f in findings(stored("running", goodput=goodput)) if "of the time" in f.title)
    assert slow.title == "40% of the time was training."
    assert slow.says == "Most of the rest was restarts and waiting for nodes."
    assert slow.evidence == ["restarts: 8m20s, 50%", "waiting for nodes: 1m40s, 10%"]
    quick = goodput | {"ratio": 0.95}
    assert not [f for f in findings(stored("running", goodput=quick)) if "of the time" in f.title]


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_is_explained(reason: Reason) -> None:
    condition = {
        "type": "Running",
        "status": "False",
        "reason": str(reason),
        "message": "details",
        "lastTransitionTime": NOW.isoformat(),
    }
    found = findings(stored("starting", conditions=[condition]))[0]
    assert (found.reason, found.says, found.todo) == (str(reason), reason.facts.cause, remedy(reason))


def test_a_reason_of_a_newer_operator_is_shown_as_it_is() -> None:
    condition = {
        "type": "Running",
        "status": "False",
        "reason": "FromTheFuture",
        "message": "details",
        "lastTransitionTime": NOW.isoformat(),
    }
    found = findings(stored("starting", conditions=[condition]))[0]
    assert (found.reason, found.evidence) == ("FromTheFuture", ["details"])
