"""Every way to lose pods in mid-training: the job goes on from its committed step and says what happened."""

import json

from digits.demo import stage, story
from tests.e2e.jobs import NAMESPACE, Jobs, attempts, phase

EPOCHS = 8
"""A few seconds more than a disturbance needs after `in_mid_training`."""


def recovered(jobs: Jobs, name: str) -> dict:
    """Wait for success after one disturbance, and check what every recovery has in common."""
    job = jobs.complete(name)
    first, second = attempts(job)
    assert second["outcome"] == "Succeeded"
    assert second["resumedFromStep"] > 0, "it started from zero"
    assert second["resumedFromStep"] >= first["committedStep"] > 0
    assert second["lostSteps"] == max(0, first["step"] - second["resumedFromStep"])
    assert job["status"]["progress"]["step"] == EPOCHS * 16
    return job


def ended(pod: dict) -> bool:
    """Whether no process of the pod is left: its object may outlive its containers by a moment."""
    containers = pod["status"].get("containerStatuses", [])
    return bool(containers) and all("terminated" in container["state"] for container in containers)


def test_a_preemption_by_the_scheduler_is_not_charged_as_a_failure(jobs: Jobs) -> None:
    jobs.create("preempted", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("preempted")
    victim = jobs.pods("preempted")[1]["spec"]["nodeName"]
    stage.apply(jobs.cluster, *story.preemptor(victim, gpus=2, namespace=NAMESPACE))
    try:
        jobs.wait(
            "preempted",
            lambda job: phase(job) in ("Recovering", "Starting", "Queued") and job["status"]["preemptions"] == 1,
            seconds=60,
            what="the preemption in the status",
        )
        jobs.told("preempted", "Preempted")
        job = recovered(jobs, "preempted")
    finally:
        jobs.kubectl("delete", "pod", story.PREEMPTOR, "--now")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (1, 0)
    assert attempts(job)[0]["outcome"] == "Disrupted"
    assert attempts(job)[0]["reason"] == "Preempted"
    assert attempts(job)[1]["lostSteps"] == 0, "SIGTERM with a grace period loses nothing"


def test_a_worker_pod_deleted_by_somebody_is_replaced(jobs: Jobs) -> None:
    jobs.create("bereft", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("bereft")
    jobs.kubectl("delete", "pod", jobs.pods("bereft")[1]["metadata"]["name"], "--wait=false")
    job = recovered(jobs, "bereft")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (1, 0)
    assert attempts(job)[0]["reason"] == "PodDeleted"


def test_a_job_orphaned_in_mid_training_leads_to_no_second_gang(jobs: Jobs) -> None:
    jobs.create("orphaned", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("orphaned")
    jobs.kubectl("delete", "job", "orphaned-a1", "--cascade=orphan")
    job = recovered(jobs, "orphaned")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (1, 0)
    assert attempts(job)[0]["reason"] == "PodDeleted"
    assert attempts(job)[1]["lostSteps"] == 0, "the pods were asked to stop"


def suspend_as_a_queue(jobs: Jobs, name: str, suspend: bool) -> None:
    """As Kueue does: it also resets the start time, so that the template of the suspended Job may be changed."""
    jobs.kubectl("patch", "job", name, "--type=merge", "-p", json.dumps({"spec": {"suspend": suspend}}))
    if suspend:
        reset = json.dumps({"status": {"startTime": None}})
        jobs.kubectl("patch", "job", name, "--subresource=status", "--type=merge", "-p", reset)


def test_a_job_that_its_queue_takes_back_keeps_its_place(jobs: Jobs) -> None:
    jobs.create("requeued", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("requeued")
    suspend_as_a_queue(jobs, "requeued-a1", True)
    queued = jobs.wait("requeued", lambda job: phase(job) == "Queued", seconds=60, what="Queued")
    assert attempts(queued)[0]["reason"] == "QueueEvicted"
    suspend_as_a_queue(jobs, "requeued-a1", False)
    job = recovered(jobs, "requeued")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (0, 0)
    first, second = attempts(job)
    assert first["jobUid"] == second["jobUid"], "another Job would have to queue again"
    assert second["lostSteps"] == 0


def test_two_rivals_on_half_a_cluster_each_both_finish(jobs: Jobs) -> None:
    """Each node has room for one pod of one job; who has half a gang gives it back after a while."""
    spec = jobs.spec(epochs=1)
    spec["accelerators"] = {"perNode": 2}
    spec["training"] |= {"batch": 8}
    spec["recovery"] |= {"schedulingTimeoutSeconds": 8}
    for name in ("one", "other"):
        jobs.create(name, spec)
    for name in ("one", "other"):
        job = jobs.complete(name)
        assert (job["status"]["preemptions"], job["status"]["failures"]) == (0, 0)


def test_a_killed_training_process_is_a_failure_and_is_tried_again(jobs: Jobs) -> None:
    jobs.create("killed", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("killed")
    jobs.kill_a_rank(jobs.pods("killed")[1]["metadata"]["name"])
    job = recovered(jobs, "killed")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (0, 1)
    assert attempts(job)[0]["reason"] == "ProcessKilled"


def test_suspend_stops_after_a_commit_and_resume_goes_on_from_it(jobs: Jobs) -> None:
    jobs.create("paused", jobs.spec(epochs=EPOCHS))
    jobs.in_mid_training("paused")
    jobs.patch("paused", {"suspend": True})
    suspended = jobs.wait("paused", lambda job: phase(job) == "Suspended", seconds=60, what="Suspended")
    assert [pod["metadata"]["name"] for pod in jobs.pods("paused") if not ended(pod)] == []
    assert attempts(suspended)[0]["outcome"] == "Withdrawn"
    jobs.patch("paused", {"suspend": False})
    job = recovered(jobs, "paused")
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (0, 0)
    assert attempts(job)[1]["lostSteps"] == 0


def test_the_operator_restarted_in_mid_training_changes_nothing(jobs: Jobs) -> None:
    jobs.create("steady", jobs.spec(epochs=12))
    jobs.in_mid_training("steady")
    before = [pod["metadata"]["uid"] for pod in jobs.pods("steady")]
    jobs.cluster.kubectl(
        "delete", "pod", "-n", stage.SYSTEM_NAMESPACE, "-l", "app.kubernetes.io/component=operator", "--now"
    )
    jobs.wait(
        "steady",
        lambda job: job["status"]["progress"]["step"] > 80,
        seconds=120,
        what="progress seen by the new operator",
    )
    assert [pod["metadata"]["uid"] for pod in jobs.pods("steady")] == before
    job = jobs.complete("steady")
    assert len(attempts(job)) == 1
    assert (job["status"]["preemptions"], job["status"]["failures"]) == (0, 0)
