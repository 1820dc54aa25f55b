"""Versions that differ: jobs of newer and older operators are read, planned on and written back without loss."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml

from distill_api.constants import COMPLETION_INDEX, Label
from distill_api.generate.crd import crd
from distill_api.job import read_stored
from distill_api.reading.unknown import unknown_fields
from distill_api.reasons import Reason
from distill_api.status import DistillJobStatus
from distill_operator.plan.plan import make_plan
from tests.support.operator.golden import GOLDEN, schema_of, stored_objects
from tests.support.operator.samples import SETTINGS, UID, at, attempt, child, closed, job, observed, pod, status
from tests.support.operator.server import JobServer, run_passes
from tests.support.operator.skew import newer, pruned, with_new_words

LATER = 4 * 3600.0
"""After everything that the golden objects tell."""
OBJECTS = [pytest.param(path, id=f"{path.parent.name}-{path.stem}") for path in stored_objects()]
JOB_1: dict[str, Any] = {
    "metadata": {
        "name": "tiny-a1",
        "uid": "job-1",
        "creationTimestamp": "2026-11-23T11:00:00Z",
        "ownerReferences": [{"uid": UID, "controller": True}],
        "labels": {Label.JOB: "tiny", Label.ATTEMPT: "1"},
    }
}


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text()))


def stored(of: DistillJobStatus | None = None, **spec: Any) -> dict[str, Any]:
    made = job(of, **spec).to_wire()
    return made if of is not None else {part: made[part] for part in made if part != "status"}


def newer_crd(**training: Any) -> dict[str, Any]:
    definition = copy.deepcopy(crd())
    schema_of(definition)["properties"]["spec"]["properties"]["training"]["properties"] |= training
    return definition


def gang(status: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """The Job and the pods of the newest attempt, all of which run."""
    newest = status["attempts"][-1]
    uid, labels = newest.get("jobUid", "job-1"), {Label.JOB: "tiny", Label.ATTEMPT: str(newest["number"])}
    owned = {**JOB_1["metadata"], "uid": uid, "labels": labels}
    pods = []
    for rank in range(newest["nodes"]):
        ranked = {**labels, COMPLETION_INDEX: str(rank)}
        owner = [{"uid": uid, "controller": True}]
        metadata = {**owned, "name": f"pod-{rank}", "uid": f"pod-{rank}", "labels": ranked, "ownerReferences": owner}
        pods.append({"metadata": metadata, "spec": {}, "status": {"phase": "Running"}})
    return {"Job": [{"metadata": owned}], "Pod": pods}


def condition(server: JobServer, kind: str) -> dict[str, Any]:
    return next((c for c in server.raw["status"]["conditions"] if c["type"] == kind), {})


@pytest.mark.parametrize("path", OBJECTS)
def test_a_job_of_a_released_version_is_planned_on(path: Path) -> None:
    server = JobServer(read(path))
    before = server.raw["status"]
    run_passes(server, since=LATER)
    after = server.raw["status"]
    over = before["phase"] in ("Succeeded", "Failed")
    assert (after == before) == over, "what is over stays as it is, and nothing else is"
    assert after["phase"] != "Failed" or over
    assert len(after["attempts"]) >= len(before["attempts"])


@pytest.mark.parametrize("path", OBJECTS)
def test_a_pass_loses_no_field_of_a_newer_operator(path: Path) -> None:
    server = JobServer(newer(read(path), schema_of(crd())))
    added = unknown_fields(server.raw["status"], DistillJobStatus)
    run_passes(server, since=LATER)
    kept = unknown_fields(server.raw["status"], DistillJobStatus)
    gone = {place for place in added.keys() - kept.keys() if place[0] != "waiting"}
    assert not gone
    assert condition(server, "Newer")["reason"] == "NewReason"


@pytest.mark.parametrize("path", OBJECTS)
def test_words_of_a_newer_operator_end_no_job(path: Path) -> None:
    server = JobServer(with_new_words(read(path)))
    before = copy.deepcopy(server.raw["status"])
    if path.stem == "running":
        server.listed = gang(before)
    server.listed["Service"] = [{"metadata": {**JOB_1["metadata"], "name": "service"}}]
    run_passes(server, 3, since=120 if path.stem == "running" else LATER)
    after = server.raw["status"]
    assert after["phase"] not in ("Failed", "Succeeded")
    assert (after["failures"], after["preemptions"]) == (before["failures"], before["preemptions"])
    for old, new in zip(before["attempts"], after["attempts"], strict=False):
        assert new.get("reason") == old.get("reason") or "reason" not in old
    if "finishedAt" in before:
        assert (after, server.made, server.deleted) == (before, [], [])


def test_an_attempt_that_ends_for_an_unknown_reason_is_not_charged() -> None:
    ended = attempt(running_at=at(0), ended_at=at(5), reason=Reason.read("SolarFlare"))
    terminating = make_plan(observed(job(status(ended)), pod(0), jobs=(child(),)), at(10), SETTINGS)
    assert terminating.status is not None
    assert (terminating.status.attempts[0].reason, terminating.status.phase) == ("SolarFlare", "Recovering")
    after = make_plan(observed(job(status(ended)), jobs=(child(deleting=True),)), at(20), SETTINGS)
    assert after.status is not None
    assert (after.status.restarts, after.status.attempt) == ("0/0", 2)


def test_an_unknown_outcome_without_an_end_is_an_open_attempt() -> None:
    paused = attempt(running_at=at(0), outcome="Paused")
    plan = make_plan(observed(job(status(paused)), pod(0), pod(1), jobs=(child(),)), at(10), SETTINGS)
    assert plan.status is None or plan.status.attempt == 1
    assert plan.actions == ()


# --- what cannot be read


def test_a_job_that_cannot_be_read_is_never_failed_and_said_once() -> None:
    server = JobServer(stored(**{"training": {"batch": 16}}))
    server.raw["spec"]["training"]["batch"] = {"perGpu": 8}
    assert run_passes(server, 3) == [SETTINGS.resync] * 3
    validated = condition(server, "Validated")
    assert (validated["status"], validated["reason"]) == ("False", "NotUnderstood")
    assert "spec.training.batch: must be a valid integer" in validated["message"]
    assert server.raw["status"].keys() == {"conditions"}
    assert (server.events, server.writes, server.made) == (["NotUnderstood"], 1, [])


def test_a_running_job_that_cannot_be_read_is_left_alone_until_it_can() -> None:
    server = JobServer(stored(status(attempt(running_at=at(0)))))
    nodes, server.raw["spec"]["nodes"] = server.raw["spec"]["nodes"], "all"
    server.listed = {"Job": [{**JOB_1, "status": {"conditions": [FAILED]}}]}
    run_passes(server, 2)
    assert server.raw["status"]["attempts"][0]["outcome"] == "Running"
    assert (server.made, server.deleted, server.events) == ([], [], ["NotUnderstood"])
    server.edit(nodes=nodes)
    run_passes(server, 3, since=200)
    assert [a["outcome"] for a in server.raw["status"]["attempts"]] == ["Disrupted", "Running"]
    assert condition(server, "Validated")["status"] == "True"


FAILED = {
    "type": "Failed",
    "status": "True",
    "reason": "PodFailurePolicy",
    "message": "Pod team/tiny-a1-0 has condition DisruptionTarget matching FailJob rule at index 0",
    "lastTransitionTime": "2026-11-23T12:00:00Z",
}


def test_a_finished_job_that_cannot_be_read_is_not_touched() -> None:
    raw = read(GOLDEN / "0.1.0" / "succeeded.yaml")
    raw["spec"]["training"]["batch"] = "many"
    server = JobServer(raw)
    run_passes(server)
    assert (server.writes, server.events) == (0, [])


# --- a CRD of another version


def test_a_job_with_a_field_that_the_operator_lacks_waits() -> None:
    server = JobServer(stored(status(closed())), newer_crd(swa={"type": "boolean", "default": False}))
    server.raw["spec"]["training"]["swa"] = True
    run_passes(server, 3)
    assert server.raw["status"]["attempt"] == 1
    assert server.raw["status"]["waiting"]["reason"] == "NotUnderstood"
    assert "spec.training.swa" in condition(server, "Validated")["message"]
    assert server.events.count("NotUnderstood") == 1
    server.edit(training={**server.raw["spec"]["training"], "swa": False})
    run_passes(server, 2)
    assert server.raw["status"]["attempt"] == 2


def test_a_default_of_a_newer_crd_keeps_no_job_from_starting() -> None:
    ema = {"type": "object", "default": {}, "properties": {"decay": {"type": "number", "default": 0.9}}}
    server = JobServer(stored(), newer_crd(ema=ema))
    server.raw["spec"]["training"]["ema"] = {"decay": 0.9}
    run_passes(server, 2)
    assert server.raw["status"]["attempt"] == 1


def test_without_the_right_to_read_the_crd_jobs_start() -> None:
    server = JobServer(stored(), crd=None)
    server.raw["spec"]["training"]["swa"] = True
    run_passes(server, 2)
    assert server.raw["status"]["attempt"] == 1


def test_fields_that_an_older_crd_drops_are_not_written_again_and_again() -> None:
    old = schema_of(read(GOLDEN / "0.1.0" / "crd.yaml"))["properties"]["status"]
    server = JobServer(
        stored(), newer_crd(swa={"type": "boolean"}), prune=lambda obj: {**obj, "status": pruned(obj["status"], old)}
    )
    server.raw["spec"]["training"]["swa"] = True  # so that the job waits: status.waiting is not in that CRD
    run_passes(server, 5)
    assert "waiting" not in server.raw["status"]
    assert (server.writes, server.events.count("NotUnderstood")) == (1, 1)


def test_what_a_newer_operator_wrote_can_be_read_by_the_contract_alone() -> None:
    raw = newer(with_new_words(read(GOLDEN / "0.1.0" / "running.yaml")), schema_of(crd()))
    assert read_stored(raw).status.phase == "Newer"
