"""Why an attempt ended: every kind of end, alone and among its echoes."""

from typing import Any

import pytest

from distill_api.reasons import Reason
from distill_operator.policies.recovery import classify
from distill_operator.types.observed import ContainerEnd, Observed, PodFacts
from tests.support.operator.samples import NOW, at, child, disrupted, done, ended, job, observed, pod, report


def cause(*pods: PodFacts, **fields: Any) -> Reason | None:
    fields.setdefault("jobs", (child(),))
    notice = classify.cause(observed(job(), *pods, **fields), 1, "job-1", at(20))
    return notice.reason if notice else None


DELETED = {"deleted_at": at(10)}


def beside(name: str, code: int, *, init: bool = False, reason: str = "Error", seconds: float = 10) -> dict[str, Any]:
    """Fields of a pod that failed because a container beside the trainer did."""
    return {"phase": "Failed", "end": ContainerEnd(name, code, at(seconds), reason, init=init)}


SINGLE = {
    "a running gang has no cause": (None, {}),
    "preempted": (Reason.PREEMPTED, disrupted(10)),
    "evicted by the API": (Reason.EVICTED, disrupted(10, "EvictionByEvictionAPI")),
    "ended by the kubelet": (Reason.EVICTED, disrupted(10, "TerminationByKubelet")),
    "taint": (Reason.NODE_LOST, disrupted(10, "DeletionByTaintManager")),
    "garbage of a lost node": (Reason.NODE_LOST, disrupted(10, "DeletionByPodGC")),
    "a kind of disruption not known yet": (Reason.EVICTED, disrupted(10, "SomethingNew")),
    "refused by the kubelet": (Reason.EVICTED, {"phase": "Failed", "reason": "UnexpectedAdmissionError"}),
    "kubectl delete pod": (Reason.POD_DELETED, DELETED),
    "kubectl delete pod, then its SIGTERM": (Reason.POD_DELETED, {**DELETED, **ended(12, 143)}),
    "kubectl delete pod, same second": (Reason.POD_DELETED, {**DELETED, **ended(10, 137)}),
    "preempted, then its SIGTERM": (Reason.PREEMPTED, {**disrupted(10), **ended(12, 143)}),
    "a crash that is cleaned up later": (Reason.TRAINER_ERROR, {**ended(8, 1), **DELETED}),
    "out of memory": (Reason.OUT_OF_MEMORY, ended(10, 137, reason="OOMKilled")),
    "out of memory, told by the trainer": (
        Reason.OUT_OF_MEMORY,
        ended(10, 1, report("failed", Reason.OUT_OF_MEMORY)),
    ),
    "SIGKILL without a word": (Reason.PROCESS_KILLED, ended(10, 137)),
    "crash without a word": (Reason.TRAINER_ERROR, ended(10, 1)),
    "crash that it reports": (Reason.PROCESS_KILLED, ended(10, 1, report("failed", Reason.PROCESS_KILLED))),
    "permanent": (Reason.PAIR_MISMATCH, ended(10, 78, report("permanent", Reason.PAIR_MISMATCH))),
    "permanent for a reason that is none": (Reason.CONFIG_INVALID, ended(10, 78, report("permanent"))),
    "permanent without a word": (Reason.CONFIG_INVALID, ended(10, 78)),
    "a rank that only lost its peer waits for the peer's own story": (
        None,
        ended(10, 1, report("failed", Reason.PEER_LOST)),
    ),
    "a stopped rank waits for the one that was deleted": (None, ended(10, 143, report("stopped", Reason.STOPPED))),
    "exit 0 of one rank is no end": (None, ended(10, 0)),
    "a command that does not exist": (Reason.POD_CANNOT_START, ended(10, 128, reason="StartError")),
    "an init container whose command does not exist": (
        Reason.POD_CANNOT_START,
        beside("fetch", 128, init=True, reason="StartError"),
    ),
    "an init container fails": (Reason.INIT_CONTAINER, beside("fetch", 1, init=True)),
    "an init container with the trainer's permanent code": (Reason.INIT_CONTAINER, beside("fetch", 78, init=True)),
    "an init container that is out of memory": (
        Reason.OUT_OF_MEMORY,
        beside("fetch", 137, init=True, reason="OOMKilled"),
    ),
    "a deleted pod's init container is told to stop": (
        Reason.POD_DELETED,
        {**DELETED, **beside("fetch", 143, init=True, seconds=12)},
    ),
    "another container with the trainer's permanent code": (Reason.TRAINER_ERROR, beside("logs", 78)),
}


@pytest.mark.parametrize(("expected", "fields"), SINGLE.values(), ids=SINGLE.keys())
def test_the_end_of_one_pod_while_its_peer_runs(expected: Reason | None, fields: dict[str, Any]) -> None:
    assert cause(pod(1, **fields), pod(0)) == expected


PEER_LOST = report("failed", Reason.PEER_LOST)

ECHOES = {
    "a preemption explains the peer's crash": (Reason.PREEMPTED, disrupted(10), ended(11, 1), 12),
    "a preemption explains a peer that only seemed to end first": (Reason.PREEMPTED, disrupted(10), ended(10, 1), 11),
    "a crash explains the deletion that follows it": (Reason.TRAINER_ERROR, ended(10, 1), {"deleted_at": at(11)}, 11),
    "a crash explains the deletion in its second": (Reason.TRAINER_ERROR, ended(10, 1), {"deleted_at": at(10)}, 10),
    "memory explains the peer's later crash": (
        Reason.OUT_OF_MEMORY,
        ended(10, 137, None, "OOMKilled"),
        ended(12, 1),
        11,
    ),
    "a deletion explains the peer's crash": (Reason.POD_DELETED, {"deleted_at": at(10)}, ended(13, 1), 14),
    "a deletion explains a crash that the Job has not seen": (
        Reason.POD_DELETED,
        {"deleted_at": at(10)},
        ended(12, 1),
        None,
    ),
    "a deletion explains a peer told to stop": (Reason.POD_DELETED, {"deleted_at": at(10)}, ended(12, 143), 13),
    "a forced deletion explains the broken connection": (
        Reason.POD_DELETED,
        {"deleted_at": at(10), "gone": True},
        ended(10, 1, PEER_LOST),
        11,
    ),
    "an init container's failure explains the deletion of its peer": (
        Reason.INIT_CONTAINER,
        beside("fetch", 1, init=True),
        {"deleted_at": at(10)},
        10,
    ),
    "a killed process explains the broken connection seen before it": (
        Reason.PROCESS_KILLED,
        {**ended(13, 1, report("failed", Reason.PROCESS_KILLED)), "deleted_at": at(12)},
        ended(11, 1, PEER_LOST),
        12,
    ),
}
"""Expected, what the guilty pod shows, what its peer shows, and when the Job was marked as failing."""


@pytest.mark.parametrize(("expected", "guilty", "echo", "failing"), ECHOES.values(), ids=ECHOES.keys())
@pytest.mark.parametrize("guilty_rank", [0, 1])
def test_only_the_first_event_is_blamed(
    expected: Reason, guilty: dict[str, Any], echo: dict[str, Any], failing: float | None, guilty_rank: int
) -> None:
    pods = (pod(guilty_rank, **guilty), pod(1 - guilty_rank, **echo))
    jobs = (child(failing_at=at(failing) if failing is not None else None),)
    assert cause(*pods, jobs=jobs) == cause(*reversed(pods), jobs=jobs) == expected


def test_an_echo_is_believed_when_nothing_else_is_left_to_explain_it() -> None:
    lost = ended(10, 1, PEER_LOST)
    assert cause(pod(0, **lost), pod(1, **lost)) == Reason.PEER_LOST
    late = classify.cause(observed(job(), pod(0, **lost), pod(1), jobs=(child(),)), 1, "job-1", at(41))
    assert late is not None
    assert late.reason == Reason.PEER_LOST


def test_ranks_that_timed_out_have_stalled_and_the_first_says_where() -> None:
    said = "rank {} waited too long for another rank in phase backward"
    gang = [
        pod(n, **ended(10 + n, 1, report("failed", Reason.PEER_LOST, waited=True, message=said.format(n))))
        for n in (0, 1)
    ]
    stalled = classify.cause(observed(job(), *gang, jobs=(child(),)), 1, "job-1", at(20))
    assert stalled is not None
    assert stalled.reason == Reason.STALLED
    assert said.format(0) in stalled.message
    killed = pod(1, **ended(12, 137))
    assert cause(gang[0], killed) == Reason.PROCESS_KILLED, "a peer that died explains the waiting"


JOB_ALONE = {
    "disrupted": (
        Reason.DISRUPTED,
        ("PodFailurePolicy", "Pod team/tiny-a1-1 has condition DisruptionTarget matching FailJob rule at index 0"),
    ),
    "permanent": (
        Reason.CONFIG_INVALID,
        ("PodFailurePolicy", "Container trainer for pod team/p failed with exit code 78 matching FailJob rule"),
    ),
    "a crashed pod would still be listed": (
        Reason.POD_DELETED,
        ("BackoffLimitExceeded", "Job has reached the specified backoff limit"),
    ),
}


@pytest.mark.parametrize(("expected", "failure"), JOB_ALONE.values(), ids=JOB_ALONE.keys())
def test_the_job_tells_when_all_pods_have_gone_unseen(expected: Reason, failure: tuple[str, str]) -> None:
    failed = child(failing_at=at(10), failure_reason=failure[0], failure_message=failure[1])
    assert cause(jobs=(failed,)) == expected


def test_the_schedulers_event_tells_a_preemption_when_pods_are_gone() -> None:
    failed = child(failing_at=at(10), failure_reason="PodFailurePolicy", failure_message="… DisruptionTarget …")
    assert cause(jobs=(failed,), victims={"tiny-a1-1": "Preempted by pod x on node node1"}) == Reason.PREEMPTED


def test_a_job_that_was_seen_and_is_missing_was_deleted() -> None:
    assert cause(jobs=()) == Reason.POD_DELETED


def test_a_job_that_was_never_seen_is_simply_not_there_yet() -> None:
    assert classify.cause(observed(job(), jobs=()), 1, None, NOW) is None


def test_a_complete_job_without_record_is_no_success() -> None:
    assert cause(pod(0, **ended(10, 0)), pod(1, **ended(10, 0)), jobs=(child(complete=True),)) == (
        Reason.NO_COMPLETION_RECORD
    )


def seen(*pods: PodFacts) -> Observed:
    return observed(job(), *pods, jobs=(child(),))


def test_only_rank_zeros_record_with_a_result_completes() -> None:
    finished = ended(10, 0, done())
    assert classify.completion(seen(pod(0, **finished)), 1) is not None
    assert classify.completion(seen(pod(1, **finished)), 1) is None
    assert classify.completion(seen(pod(0, **ended(10, 0))), 1) is None
    assert classify.completion(seen(pod(0, **ended(10, 0, report("stopped", Reason.STOPPED)))), 1) is None


def test_the_message_names_pod_node_and_what_to_do() -> None:
    notice = classify.cause(seen(pod(1, **ended(10, 137, reason="OOMKilled"))), 1, "job-1", at(20))
    assert notice is not None
    assert "tiny-a1-1" in notice.message
    assert "node1" in notice.message
    assert "raise its memory limit" in notice.message
