"""Every way to lose pods in mid-training: the job goes on from its committed step and says what happened."""

from digits.demo import stage, story
from tests.e2e.jobs import NAMESPACE, Jobs, attempts, phase

EPOCHS = 12


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
    jobs.create("steady", jobs.spec(epochs=EPOCHS))
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
