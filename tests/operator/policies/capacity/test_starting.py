"""Pods that have a node but cannot start: what is told, how long they may hold it, and how often."""

from dataclasses import replace
from typing import Any

import pytest

from distill_api.constants import ConditionType, Outcome, Phase
from distill_api.job import DistillJob
from distill_api.reason_facts import MAX_FAILED_STARTS
from distill_api.reasons import Reason
from distill_api.status import Attempt, DistillJobStatus, StartProblem
from distill_operator.kube import texts
from distill_operator.plan.plan import make_plan
from distill_operator.policies.capacity import starting
from distill_operator.policies.recovery import backoff
from distill_operator.status import conditions
from distill_operator.types.actions import Delete
from distill_operator.types.observed import PodFacts
from tests.support.operator.samples import SETTINGS, UID, at, attempt, child, closed, job, observed, pod, status

PULL = 'failed to pull and unpack image "registry.example/trainer:1": failed to resolve reference: '
NOT_FOUND = f'rpc error: code = NotFound desc = {PULL}"registry.example/trainer:1": not found'
DENIED = f"{PULL}pull access denied, repository does not exist or may require authorization"
AWAY = f"{PULL}failed to do request: Head: dial tcp 10.0.0.1:443: connect: connection refused"
SETUP = 'MountVolume.SetUp failed for volume "w" : '
ATTACH = 'Multi-Attach error for volume "pvc-1" Volume is already exclusively attached to one node'
UNMOUNTED = (
    "Unable to attach or mount volumes: unmounted volumes=[data], unattached volumes=[]: context deadline exceeded"
)
LASTS, PASSES, SILENT = True, False, None

KUBELET = {
    "a Secret for a variable": ("CreateContainerConfigError", 'secret "wandb" not found', LASTS),
    "a key of a ConfigMap": ("CreateContainerConfigError", "couldn't find key k in ConfigMap team/c", LASTS),
    "a root image": ("CreateContainerConfigError", "container has runAsNonRoot and image will run as root", LASTS),
    "no command": ("CreateContainerError", "no command specified", LASTS),
    "a slow disk": ("CreateContainerError", "context deadline exceeded", PASSES),
    "a slow disk, again": ("CreateContainerError", 'name "trainer_x" is reserved for "abc"', PASSES),
    "a runtime that cannot run it": ("RunContainerError", 'exec: "trian": executable file not found in $PATH', LASTS),
    "a name that is none": ("InvalidImageName", 'couldn\'t parse image name "a:b:c": invalid reference format', LASTS),
    "an image that may not be pulled": ("ErrImageNeverPull", 'Container image "x" is not present', LASTS),
    "a mistyped image": ("ErrImagePull", NOT_FOUND, LASTS),
    "a mistyped image, in the pause": (
        "ImagePullBackOff",
        f'Back-off pulling image "registry.example/trainer:1": ErrImagePull: {NOT_FOUND}',
        LASTS,
    ),
    "a pause without a cause": ("ImagePullBackOff", 'Back-off pulling image "registry.example/trainer:1"', SILENT),
    "no access": ("ErrImagePull", DENIED, LASTS),
    "a registry that is away": ("ErrImagePull", AWAY, PASSES),
    "a registry that is away, in the pause": (
        "ImagePullBackOff",
        f'Back-off pulling image "registry.example/trainer:1": ErrImagePull: {AWAY}',
        PASSES,
    ),
    "a registry that says so": ("RegistryUnavailable", "image pull failed because the registry is unavailable", PASSES),
    "a registry that has had enough": ("ErrImagePull", f"{PULL}429 Too Many Requests - toomanyrequests", PASSES),
    "a Secret as a volume": ("FailedMount", f'{SETUP}secret "wandb" not found', LASTS),
    "a ConfigMap as a volume": ("FailedMount", f'{SETUP}configmap "c" not found', LASTS),
    "a key of a volume": ("FailedMount", f"{SETUP}references non-existent secret key: k", LASTS),
    "a claim's volume on another node": ("FailedAttachVolume", ATTACH, PASSES),
    "a slow storage": ("FailedMount", UNMOUNTED, PASSES),
    "no network": ("FailedCreatePodSandBox", "Failed to create pod sandbox: rpc error: cni not initialized", PASSES),
}
"""The kubelet's words in Kubernetes 1.30 to 1.37, and containerd's; whether the cause lasts until it is repaired."""


@pytest.mark.parametrize(("word", "message", "lasts"), KUBELET.values(), ids=KUBELET.keys())
def test_why_a_pod_cannot_start_and_whether_that_lasts(word: str, message: str, lasts: bool | None) -> None:
    expected = Reason.IMAGE_PULL if "Image" in word or "Registry" in word else Reason.POD_CANNOT_START
    assert (texts.reason_of_start(word), texts.lasts(word, message)) == (expected, lasts)


@pytest.mark.parametrize("word", ["", "ContainerCreating", "PodInitializing", "SomethingNew"])
def test_a_pod_that_only_takes_its_time_has_no_problem(word: str) -> None:
    assert texts.reason_of_start(word) is None
    assert starting.problem((pod(0, phase="Pending", waiting=word, waiting_message="why"),)) is None


def stuck(case: str, rank: int = 1, **fields: Any) -> PodFacts:
    word, message, _ = KUBELET[case]
    return pod(rank, phase="Pending", waiting=word, waiting_message=message, **fields)


def after(stored: DistillJob, seconds: float, *pods: PodFacts) -> DistillJob:
    """The job after a pass over these pods."""
    plan = make_plan(observed(stored, *pods, jobs=(child(),)), at(seconds), SETTINGS)
    return stored.model_copy(update={"status": plan.status or stored.status})


def problem_of(stored: DistillJob) -> StartProblem | None:
    return stored.status.attempts[0].start_problem


def reason_of(stored: DistillJob) -> Reason | None:
    return stored.status.attempts[0].reason


def begun() -> DistillJob:
    return job(status(attempt(), phase=Phase.STARTING))


@pytest.mark.parametrize("case", ["a Secret for a variable", "a mistyped image", "a Secret as a volume"])
def test_the_cause_is_told_at_once_and_ends_the_attempt_two_minutes_later(case: str) -> None:
    told = after(begun(), 10, pod(0), stuck(case))
    running = conditions.find(told.status.conditions, ConditionType.RUNNING)
    assert running is not None
    assert running.reason == texts.reason_of_start(KUBELET[case][0])
    assert KUBELET[case][1] in running.message
    assert "the attempt is withdrawn at 12:02:10Z unless this is repaired" in running.message
    assert problem_of(told) == StartProblem(reason=Reason(running.reason), since=at(10), lasts=True)
    late = after(told, 129, pod(0), stuck(case))
    assert reason_of(late) is None
    assert problem_of(late) == problem_of(told)
    plan = make_plan(observed(late, pod(0), stuck(case), jobs=(child(),)), at(130), SETTINGS)
    assert plan.status is not None
    assert plan.status.attempts[0].reason == running.reason
    assert KUBELET[case][1] in (plan.status.attempts[0].message or "")
    assert [action.kind for action in plan.actions if isinstance(action, Delete)] == ["Job"]


def test_a_secret_that_is_created_a_minute_later_starts_the_same_attempt() -> None:
    waiting = after(begun(), 10, pod(0), stuck("a Secret for a variable"))
    started = after(waiting, 70, pod(0), pod(1))
    assert (reason_of(started), problem_of(started), started.status.phase) == (None, None, Phase.STARTING)
    assert reason_of(after(started, 200, pod(0), pod(1))) is None
    again = after(started, 200, pod(0), stuck("a Secret for a variable"))
    assert problem_of(again) == StartProblem(reason=Reason.POD_CANNOT_START, since=at(200), lasts=True)


@pytest.mark.parametrize("case", ["a registry that is away", "a claim's volume on another node", "a slow storage"])
def test_a_cause_that_may_pass_has_the_scheduling_timeout(case: str) -> None:
    waiting = after(begun(), 10, pod(0), stuck(case))
    assert problem_of(waiting) == StartProblem(reason=problem_reason(case), since=at(10), lasts=False)
    assert reason_of(after(waiting, 899, pod(0), stuck(case))) is None
    assert reason_of(after(waiting, 1200, pod(0), stuck(case))) == problem_reason(case)


def problem_reason(case: str) -> Reason:
    return texts.reason_of_start(KUBELET[case][0]) or Reason.PODS_STARTING


@pytest.mark.parametrize(
    ("case", "lasts"), [("a mistyped image", True), ("a registry that is away", False), ("no access", True)]
)
def test_a_pause_without_a_cause_keeps_what_the_pull_before_it_told(case: str, lasts: bool) -> None:
    pulled = after(begun(), 10, stuck(case))
    paused = after(pulled, 30, stuck("a pause without a cause"))
    assert problem_of(paused) == StartProblem(reason=Reason.IMAGE_PULL, since=at(10), lasts=lasts)


def test_a_cause_that_lasts_counts_before_another_pods_that_may_pass() -> None:
    gang = (stuck("a slow storage", 0), stuck("a Secret for a variable", 1))
    for pods in (gang, gang[::-1]):
        found = starting.problem(pods)
        assert found is not None
        assert found.pod.rank == 1


def test_a_pod_that_is_being_deleted_or_has_no_node_has_no_problem() -> None:
    case = "a Secret for a variable"
    for fields in ({"deleted_at": at(1)}, {"scheduled_at": None}, {"gone": True}):
        assert starting.problem((stuck(case, **fields),)) is None


def test_an_attempt_that_has_trained_has_no_problem() -> None:
    trained = attempt(running_at=at(5))
    assert starting.observed(trained, (stuck("a Secret for a variable"),), at(9)).start_problem is None


def test_failed_starts_are_charged_to_nothing_and_back_off_ever_longer() -> None:
    waits = [backoff.delay(Reason.IMAGE_PULL, Outcome.WITHDRAWN, n, UID, n, SETTINGS) for n in range(1, 9)]
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    for reason in (Reason.IMAGE_PULL, Reason.POD_CANNOT_START):
        assert (reason.facts.outcome, reason.facts.budget) == (Outcome.WITHDRAWN, None)


TWO = closed(1, Reason.POD_CANNOT_START, generation=1)


@pytest.mark.parametrize(
    ("newest", "reason", "count"),
    [
        (attempt(2, generation=1), Reason.POD_CANNOT_START, 3),
        (attempt(2, generation=1), Reason.IMAGE_PULL, 3),
        (attempt(2, generation=2), Reason.POD_CANNOT_START, 1),
        (attempt(2, generation=1), Reason.SCHEDULING_TIMEOUT, 2),
        (attempt(2, generation=1), Reason.PREEMPTED, 2),
        (attempt(2, generation=1), Reason.SUSPENDED_BY_USER, 0),
        (attempt(2, generation=1, running_at=at(9)), Reason.PREEMPTED, 0),
    ],
)
def test_failed_starts_in_a_row_are_counted(newest: Attempt, reason: Reason, count: int) -> None:
    assert starting.counted(status(TWO, newest, failed_starts=2), newest, reason).failed_starts == count


def test_the_limit_of_failed_starts_fails_the_job_with_their_reason() -> None:
    problem = StartProblem(reason=Reason.IMAGE_PULL, since=at(0), lasts=True)
    last = closed(2, Reason.IMAGE_PULL, message="no such image", start_problem=problem)
    assert starting.exceeded(status(TWO, last, failed_starts=MAX_FAILED_STARTS - 1)) is None
    ended = starting.exceeded(status(TWO, last, failed_starts=MAX_FAILED_STARTS))
    assert ended is not None
    assert ended.reason == Reason.IMAGE_PULL
    assert "8 attempts in a row could not start. The last one: no such image" in ended.message
    away = last.model_copy(update={"start_problem": problem.model_copy(update={"lasts": False})})
    assert starting.exceeded(status(TWO, away, failed_starts=99)) is None, "a registry that is away comes back"


def test_the_documented_limits_are_the_ones_that_hold() -> None:
    counted = DistillJobStatus.model_json_schema(by_alias=True)["properties"]["failedStarts"]["description"]
    lasts = StartProblem.model_json_schema(by_alias=True)["properties"]["lasts"]["description"]
    assert f"With {MAX_FAILED_STARTS} the job" in counted
    assert f"withdrawn {starting.LET_GO_SECONDS} s after" in lasts


def test_a_problem_is_no_problem_of_the_pod_once_it_runs() -> None:
    assert starting.problem((replace(stuck("a Secret for a variable"), phase="Running"),)) is None
