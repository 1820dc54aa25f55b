"""A job's life against a real API server, Job controller, scheduler and garbage collector."""

import time
from collections.abc import Callable

import pytest

from distill_api.constants import Env, Label, Outcome, Phase
from distill_api.pod.report import TerminationMessage
from distill_api.pod.run import RunConfig
from distill_api.reasons import Reason
from distill_api.spec.recipe import AUTO
from distill_api.status import DistillJobStatus
from tests.support.apiserver.api import COLLECTED_WITHIN, Object, wait_for
from tests.support.apiserver.nodes import GPUS
from tests.support.apiserver.team import RESULT, Team


def restarts_of(status: DistillJobStatus) -> tuple[int, int]:
    return status.failures, status.preemptions


def finishes(team: Team, attempt: int) -> DistillJobStatus:
    team.run_gang(attempt)
    team.finish(attempt)
    return team.reaches(Phase.SUCCEEDED)


def test_from_apply_to_a_distilled_student(team: Team) -> None:
    team.submit()
    starting = team.reaches(Phase.STARTING)
    assert (starting.attempt, starting.nodes) == (1, "0/2")

    running = team.train(1, step=40, committed=30)
    assert (running.nodes, running.restarts) == ("2/2", "0/0")
    assert running.progress is not None
    assert (running.progress.step, running.progress.committed_step, running.progress.eta) == (40, 30, "1m")
    assert running.progress.map_gap == pytest.approx(0.2)
    assert team.condition("Running")["status"] == "True"
    assert team.condition("Validated")["status"] == "True"

    team.finish(1)
    over = team.reaches(Phase.SUCCEEDED)
    assert over.result == RESULT
    assert over.finished_at is not None
    assert [(a.outcome, a.reason, a.step, a.committed_step) for a in over.attempts] == [
        (Outcome.SUCCEEDED, Reason.COMPLETED, 200, 200)
    ]
    assert team.condition("Complete")["status"] == "True"
    assert team.condition("Running")["status"] == "False"
    assert wait_for(lambda: team.events() == ["AttemptCreated", "Training", "Completed"], why=team.events)
    wait_for(lambda: not team.api.list("Service", team.ns))
    assert [p["status"]["phase"] for p in team.pods()] == ["Succeeded", "Succeeded"], "logs can still be read"
    wait_for(lambda: f'distill_operator_jobs{{namespace="{team.ns}",phase="Succeeded"}} 1.0' in team.operator.metrics())


def test_what_recipe_auto_stands_for_is_stored_and_given_to_the_pods(team: Team) -> None:
    team.submit(recipe="auto", distillation={})
    starting = team.reaches(Phase.STARTING)
    assert starting.recipe == AUTO
    team.run_gang(1)
    (trainer,) = team.pods()[0]["spec"]["containers"]
    (text,) = (variable["value"] for variable in trainer["env"] if variable["name"] == Env.RUN)
    run = RunConfig.model_validate_json(text)
    assert (run.recipe, run.spec.student.init) == (AUTO, "inherit")
    team.finish(1)
    assert team.reaches(Phase.SUCCEEDED).recipe == AUTO


def test_pods_are_fit_for_the_restricted_standard_and_hold_no_token(make_team: Callable[..., Team]) -> None:
    team = make_team({"pod-security.kubernetes.io/enforce": "restricted"})
    team.submit()
    spec = team.scheduled(1)[0]["spec"]
    assert not any("serviceAccountToken" in str(volume) for volume in spec["volumes"])
    assert len({pod["spec"]["nodeName"] for pod in team.scheduled(1)}) == 2, "one pod of a gang per node"


def urgent_pod(node: str) -> Object:
    container = {"name": "c", "image": "x", "resources": {"limits": {"nvidia.com/gpu": str(GPUS)}}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "urgent"},
        "spec": {
            "priorityClassName": "urgent",
            "containers": [container],
            "nodeSelector": {"kubernetes.io/hostname": node},
            "automountServiceAccountToken": False,
        },
    }


@pytest.fixture
def urgent(team: Team) -> str:
    """A PriorityClass that preempts."""
    priority = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "urgent"},
        "value": 1000,
    }
    if team.api.get("PriorityClass", "", "urgent") is None:
        team.api.create(priority)
    return "urgent"


def test_a_preempted_job_resumes_from_its_commit_and_pays_no_failure(team: Team, urgent: str) -> None:
    team.submit()
    team.train(1, step=57, committed=50)
    team.api.create(urgent_pod("node1"), team.ns)
    recovering = team.reaches(Phase.RECOVERING)
    assert recovering.attempts[0].reason == Reason.PREEMPTED
    assert recovering.preemptions == 0, "charged when the gang is gone, not before"
    assert "node1" in (recovering.attempts[0].message or "")
    team.stop_pods(1, committed=57)
    again = team.reaches(Phase.STARTING)
    assert (again.attempt, restarts_of(again)) == (2, (0, 1))
    unschedulable = team.waits_because("Unschedulable")
    assert "1 of 2 pods cannot be scheduled" in unschedulable["message"]

    team.api.delete("Pod", team.ns, urgent, gracePeriodSeconds=0)
    resumed = team.train(2, step=60, committed=57, resumed=57)
    assert (resumed.attempts[1].resumed_from_step, resumed.attempts[1].lost_steps) == (57, 0)
    assert f'namespace="{team.ns}",outcome="Disrupted",reason="Preempted"}} 1.0' in team.operator.metrics()
    team.finish(2)
    assert restarts_of(team.reaches(Phase.SUCCEEDED)) == (0, 1)
    events = wait_for(lambda: e if "Completed" in (e := team.events()) else None)
    assert events == ["AttemptCreated", "Training", "Preempted", "AttemptCreated", "Resumed", "Training", "Completed"]


def test_a_deleted_worker_is_a_disruption(team: Team) -> None:
    team.submit()
    pods = team.train(1, step=10, committed=5) and team.pods(1)
    team.api.delete("Pod", team.ns, pods[1]["metadata"]["name"])
    recovering = team.reaches(Phase.RECOVERING)
    assert recovering.attempts[0].reason == Reason.POD_DELETED
    team.stop_pods(1, committed=10)
    assert restarts_of(finishes(team, 2)) == (0, 1)


def killed(attempt: int, step: int, committed: int) -> TerminationMessage:
    return TerminationMessage(
        outcome="failed", reason=Reason.PROCESS_KILLED, attempt=attempt, rank=2, step=step, committed_step=committed,
        message="rank 2 was killed by SIGKILL",
    )  # fmt: skip


def test_a_killed_process_is_a_failure_and_backs_off_without_progress(team: Team) -> None:
    team.submit()
    team.train(1, step=3)
    team.kubelet.end(team.pods(1)[1], 1, killed(1, step=4, committed=0))
    team.stop_pods(1, committed=0)
    backing_off = team.waits_because("BackingOff")
    assert "ProcessKilled" in backing_off["message"]
    assert team.status.phase == Phase.RECOVERING
    assert team.status.next_attempt_at is not None
    team.train(2, step=30, committed=20)
    team.kubelet.end(team.pods(2)[1], 1, killed(2, step=33, committed=20))
    team.stop_pods(2, committed=20)
    team.say(3, step=20, committed=20, resumed=20)
    team.run_gang(3)
    lost = wait_for(lambda: a if (a := team.attempt()).lost_steps is not None else None)
    assert (lost.resumed_from_step, lost.lost_steps) == (20, 13)
    team.finish(3)
    over = team.reaches(Phase.SUCCEEDED)
    assert restarts_of(over) == (2, 0)
    assert over.attempts[0].message is not None
    assert over.attempts[0].message.endswith("rank 2 was killed by SIGKILL")


def test_too_many_failures_end_the_job(team: Team) -> None:
    team.submit(recovery={"maxFailures": 0, "gracePeriodSeconds": 10})
    pods = team.run_gang(1)
    team.kubelet.end(pods[0], 137, reason="OOMKilled")
    team.stop_pods(1, committed=0)
    over = team.reaches(Phase.FAILED)
    assert (over.attempts[0].reason, restarts_of(over)) == (Reason.OUT_OF_MEMORY, (1, 0))
    failed = team.condition("Failed")
    assert failed["reason"] == "FailureBudgetExceeded"
    assert "raise its memory limit" in failed["message"]


def test_a_permanent_error_ends_the_job_at_once_with_the_trainers_words(team: Team) -> None:
    team.submit()
    pods = team.run_gang(1)
    words = "the teacher has 10 classes and the student 3; use the same data set for both"
    report = TerminationMessage(outcome="permanent", reason=Reason.PAIR_MISMATCH, message=words, attempt=1)
    team.kubelet.end(pods[0], 78, report)
    team.kubelet.end(pods[1], 78, report)
    over = team.reaches(Phase.FAILED)
    assert over.attempt == 1
    failed, validated = team.condition("Failed"), team.condition("Validated")
    assert (failed["reason"], failed["message"]) == ("PairMismatch", words)
    assert (validated["status"], validated["reason"]) == ("False", "PairMismatch")


def test_exit_zero_without_a_record_is_no_success(team: Team) -> None:
    team.submit(recovery={"maxFailures": 0, "gracePeriodSeconds": 10})
    for pod in team.run_gang(1):
        team.kubelet.end(pod, 0)
    over = team.reaches(Phase.FAILED)
    assert over.attempts[0].reason == Reason.NO_COMPLETION_RECORD
    assert over.result is None


def test_a_missing_claim_is_waited_for_then_named(team: Team) -> None:
    team.api.delete("PersistentVolumeClaim", team.ns, "digits")
    wait_for(lambda: team.api.get("PersistentVolumeClaim", team.ns, "digits") is None)
    team.submit()
    team.waits_because("ClaimNotFound", "Validated")
    assert team.status.phase == Phase.PENDING
    over = team.reaches(Phase.FAILED)
    failed = team.condition("Failed")
    assert failed["reason"] == "ClaimNotFound"
    assert '"digits" of spec.volumes.data does not exist' in failed["message"]
    assert over.attempt == 0


def test_a_claim_that_comes_later_is_found(team: Team) -> None:
    volumes = {"checkpoints": {"claimName": "late"}, "data": {"claimName": "digits"}, "models": {"claimName": "runs"}}
    team.submit(volumes=volumes)
    team.waits_because("ClaimNotFound")
    team.make_claims("late")
    team.reaches(Phase.STARTING)


def test_a_claim_for_one_node_is_refused_for_two(team: Team) -> None:
    team.make_claims("narrow", mode="ReadWriteOnce")
    volumes = {"checkpoints": {"claimName": "narrow"}, "data": {"claimName": "digits"}, "models": {"claimName": "runs"}}
    team.submit(volumes=volumes)
    team.reaches(Phase.FAILED)
    assert "use a ReadWriteMany claim or nodes: 1" in team.condition("Failed")["message"]


def test_a_claim_template_is_made_and_goes_with_the_job(team: Team) -> None:
    template = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    volumes = {
        "checkpoints": {"claimTemplate": template},
        "data": {"claimName": "digits"},
        "models": {"claimName": "runs"},
    }
    team.submit(volumes=volumes)
    wait_for(lambda: team.api.get("PersistentVolumeClaim", team.ns, "tiny-checkpoints"))
    wait_for(lambda: len(team.pods(1)) == 2)
    team.api.delete("DistillJob", team.ns, "tiny")
    names = {"digits", "runs"}
    wait_for(lambda: {c["metadata"]["name"] for c in team.api.list("PersistentVolumeClaim", team.ns)} == names, 60)


def test_a_retained_claim_outlives_its_job_and_is_not_taken_by_another(team: Team) -> None:
    template = {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}
    spec = {
        "volumes": {
            "checkpoints": {"claimTemplate": template},
            "data": {"claimName": "digits"},
            "models": {"claimName": "runs"},
        },
        "persistentVolumeClaimRetentionPolicy": {"whenDeleted": "Retain"},
    }
    team.submit(**spec)
    made = wait_for(lambda: team.api.get("PersistentVolumeClaim", team.ns, "tiny-checkpoints"))
    wait_for(lambda: len(team.pods(1)) == 2)
    for suspend, phase in ((True, Phase.SUSPENDED), (False, Phase.STARTING)):
        team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": suspend}})
        team.reaches(phase)
    wait_for(lambda: len(team.pods(2)) == 2, 20, lambda: (team.status.to_wire(), team.operator.tail()))
    team.api.delete("DistillJob", team.ns, "tiny")
    wait_for(lambda: not team.api.list("Job", team.ns), COLLECTED_WITHIN)
    kept = team.api.get("PersistentVolumeClaim", team.ns, "tiny-checkpoints")
    assert kept is not None
    assert (kept["metadata"]["uid"], "deletionTimestamp" in kept["metadata"]) == (made["metadata"]["uid"], False)
    wait_for(lambda: not team.pods(), COLLECTED_WITHIN)
    team.submit(**spec)
    assert "or use it with claimName" in team.waits_because("NameTaken")["message"]


def test_a_lost_claim_with_checkpoints_is_waited_for_until_it_is_restored(team: Team) -> None:
    claim, size = "tiny-checkpoints", {"requests": {"storage": "1Gi"}}
    template = {"accessModes": ["ReadWriteMany"], "resources": size, "storageClassName": ""}
    others = {"data": {"claimName": "digits"}, "models": {"claimName": "runs"}}
    team.make_volume(claim)
    team.submit(volumes={"checkpoints": {"claimTemplate": template}, **others})
    team.train(1, step=30, committed=20)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    team.stop_pods(1, committed=30)
    team.reaches(Phase.SUSPENDED)
    team.api.delete("PersistentVolumeClaim", team.ns, claim)
    wait_for(lambda: team.api.get("PersistentVolumeClaim", team.ns, claim) is None, 30)
    team.api.delete("PersistentVolume", "", f"{team.ns}-{claim}")
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": False}})
    assert "the checkpoints up to step 30" in team.waits_because("CheckpointsLost")["message"]
    assert team.api.get("PersistentVolumeClaim", team.ns, claim) is None, "an empty claim would begin again"

    wait_for(lambda: team.api.get("PersistentVolume", "", f"{team.ns}-{claim}") is None, 30)
    team.make_volume(claim)
    metadata = {"name": claim, "labels": {Label.UID: (team.raw() or {})["metadata"]["uid"]}}
    team.api.create(
        {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": template}, team.ns
    )
    team.reaches(Phase.STARTING)
    pods = team.scheduled(2)
    assert {pod["metadata"]["labels"][Label.COMMITTED_STEP] for pod in pods} == {"30"}


def test_pods_that_admission_refuses_fail_the_job_with_its_words(make_team: Callable[..., Team]) -> None:
    team = make_team({"pod-security.kubernetes.io/enforce": "restricted"})
    container = {"name": "trainer", "securityContext": {"privileged": True, "allowPrivilegeEscalation": True}}
    team.submit(template={"spec": {"containers": [container]}})
    team.reaches(Phase.FAILED)
    failed = team.condition("Failed")
    assert failed["reason"] == "PodRejected"
    assert "violates PodSecurity" in failed["message"]
    wait_for(lambda: not team.api.list("Job", team.ns))


def test_an_invalid_pod_template_fails_the_job_in_the_api_servers_words(team: Team) -> None:
    container = {"name": "trainer", "resources": {"limits": {"memory": "much"}}}
    team.submit(template={"spec": {"containers": [container]}})
    team.reaches(Phase.FAILED)
    failed = team.condition("Failed")
    assert failed["reason"] == "PodRejected"
    assert "Job tiny-a1 is rejected" in failed["message"]


def test_a_quota_is_waited_for(team: Team) -> None:
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "small"},
        "spec": {"hard": {"count/jobs.batch": "0"}},
    }
    team.api.create(quota, team.ns)
    wait_for(lambda: (team.api.get("ResourceQuota", team.ns, "small") or {}).get("status", {}).get("hard"))
    team.submit()
    team.waits_because("QuotaExceeded")
    assert team.status.phase == Phase.PENDING
    team.api.delete("ResourceQuota", team.ns, "small")
    team.reaches(Phase.STARTING)
    assert restarts_of(finishes(team, 1)) == (0, 0)


def test_an_image_that_cannot_be_pulled_is_told_while_it_is_waited_for(team: Team) -> None:
    team.submit(recovery={"schedulingTimeoutSeconds": 3, "maxFailures": 0, "gracePeriodSeconds": 10})
    pods = team.scheduled(1)
    for pod in pods:
        team.kubelet.wait(pod, "ImagePullBackOff", "no such image trainer:test")
    told = team.waits_because("ImagePullFailed")
    assert "no such image" in told["message"]
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in team.pods(1)), 20)
    for pod in team.pods(1):
        team.kubelet.remove(pod)
    withdrawn = wait_for(lambda: s if (s := team.status).next_attempt_at else None)
    assert (withdrawn.attempts[0].outcome, withdrawn.attempts[0].reason) == (Outcome.WITHDRAWN, Reason.IMAGE_PULL)
    assert (withdrawn.failed_starts, restarts_of(withdrawn)) == (1, (0, 0))


def test_half_a_gang_gives_its_nodes_back_without_a_charge(team: Team, urgent: str) -> None:
    team.api.create(urgent_pod("node1"), team.ns)
    wait_for(lambda: (team.api.get("Pod", team.ns, urgent) or {})["spec"].get("nodeName"))
    team.submit(recovery={"schedulingTimeoutSeconds": 2, "gracePeriodSeconds": 10})
    taken_back = wait_for(
        lambda: s if (s := team.status).attempts and s.attempts[0].reason == Reason.SCHEDULING_TIMEOUT else None
    )
    assert restarts_of(taken_back) == (0, 0)
    team.stop_pods(1, committed=0)
    withdrawn = wait_for(lambda: s if (s := team.status).next_attempt_at else None)
    assert withdrawn.attempts[0].outcome == Outcome.WITHDRAWN
    assert withdrawn.phase == Phase.RECOVERING


def test_suspend_stops_and_resume_goes_on_at_no_cost(team: Team) -> None:
    team.submit()
    team.train(1, step=30, committed=20)
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": True}})
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in team.pods(1)))
    assert team.attempt().reason == Reason.SUSPENDED_BY_USER
    team.stop_pods(1, committed=30)
    suspended = team.reaches(Phase.SUSPENDED)
    assert suspended.attempts[0].outcome == Outcome.WITHDRAWN
    assert team.condition("Suspended")["status"] == "True"
    time.sleep(1)
    assert not team.pods()

    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"suspend": False}})
    team.reaches(Phase.STARTING)
    resumed = team.train(2, step=31, committed=30, resumed=30)
    assert (resumed.attempts[1].resumed_from_step, resumed.attempts[1].lost_steps) == (30, 0)
    team.finish(2)
    assert restarts_of(team.reaches(Phase.SUCCEEDED)) == (0, 0)


def test_a_deleted_job_leaves_nothing_behind(team: Team) -> None:
    team.submit()
    team.train(1, step=10)
    team.api.delete("DistillJob", team.ns, "tiny")
    # Kubernetes' garbage collector deletes the Job, and then, in a round of its own, the pods.
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in team.pods()), COLLECTED_WITHIN, team.pods)
    for pod in team.pods():
        team.kubelet.remove(pod)

    def nothing() -> bool:
        kinds = ("Pod", "Job", "Service", "NetworkPolicy", "DistillJob")
        return not any(team.api.list(kind, team.ns) for kind in kinds)

    wait_for(nothing, 20)
    claims = {claim["metadata"]["name"] for claim in team.api.list("PersistentVolumeClaim", team.ns)}
    assert claims == {"runs", "digits"}, "claims of the user stay"
    wait_for(lambda: f'namespace="{team.ns}",phase="Running"}} 0.0' in team.operator.metrics())


def test_a_job_made_again_waits_for_the_pods_of_the_first(team: Team) -> None:
    team.submit()
    team.train(1, step=10)
    team.api.delete("DistillJob", team.ns, "tiny")
    wait_for(lambda: team.raw() is None)
    team.submit()
    team.waits_because("PodsTerminating")
    assert team.status.attempt == 0
    wait_for(lambda: all(p["metadata"].get("deletionTimestamp") for p in team.pods()), COLLECTED_WITHIN)
    for pod in team.pods():
        team.kubelet.remove(pod)
    assert team.reaches(Phase.STARTING, 30).attempt == 1


def test_ttl_removes_the_finished_job(team: Team) -> None:
    team.submit(ttlSecondsAfterFinished=1)
    team.run_gang(1)
    team.finish(1)
    wait_for(lambda: team.raw() is None)
    wait_for(lambda: not team.pods(), COLLECTED_WITHIN)


def test_a_finished_jobs_child_deleted_by_hand_does_not_run_again(team: Team) -> None:
    team.submit()
    team.train(1, step=10)
    team.finish(1)
    over = team.reaches(Phase.SUCCEEDED)
    wait_for(lambda: any(c["type"] == "Complete" for j in team.api.list("Job", team.ns) for c in conditions_of(j)), 30)
    team.api.delete("Job", team.ns, "tiny-a1", propagationPolicy="Background")
    wait_for(lambda: not team.api.list("Job", team.ns))
    team.api.patch("DistillJob", team.ns, "tiny", {"spec": {"ttlSecondsAfterFinished": 3600}})
    wait_for(lambda: team.status.observed_generation == 2)
    assert not team.api.list("Job", team.ns)
    assert team.status == over.model_copy(update={"observed_generation": 2})


def conditions_of(job: Object) -> list[Object]:
    return (job.get("status") or {}).get("conditions") or []


def test_a_deadline_ends_the_job(team: Team) -> None:
    team.submit(activeDeadlineSeconds=3)
    team.run_gang(1)
    wait_for(lambda: team.status.attempts and team.attempt().reason == Reason.DEADLINE_EXCEEDED)
    team.stop_pods(1, committed=0)
    over = team.reaches(Phase.FAILED)
    assert team.condition("Failed")["reason"] == "DeadlineExceeded"
    assert restarts_of(over) == (0, 0)


def test_a_service_of_somebody_else_is_neither_used_nor_harmed(team: Team) -> None:
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "tiny-a1"},
        "spec": {"ports": [{"port": 80}]},
    }
    theirs = team.api.create(service, team.ns)
    team.submit()
    team.waits_because("NameTaken")
    kept = team.api.get("Service", team.ns, "tiny-a1")
    assert kept is not None
    assert kept["metadata"]["resourceVersion"] == theirs["metadata"]["resourceVersion"]
    team.api.delete("Service", team.ns, "tiny-a1")
    wait_for(lambda: len(team.pods(1)) == 2, 20)
