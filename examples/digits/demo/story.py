"""The demo on a cluster: train a teacher, distil a student, lose a pod to a preemption, recover, finish."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits.demo import stage
from digits.demo.narrator import Narrator
from distill_api.constants import COMPLETION_INDEX, Label
from distill_api.reasons import Reason
from testcluster import Cluster

NAMESPACE = "distill-demo"
EXAMPLES = Path(__file__).parents[1]
JOBS = {"digits-teacher": "teacher.yaml", "digits-plain": "plain.yaml", "digits-student": "distilljob.yaml"}
"""File of each job, in their order. The last two train the same student, without and with the teacher."""
TEACHER, PLAIN, STUDENT = JOBS
PREEMPTOR = "urgent"
PREEMPTOR_SECONDS = 5


class TourFailed(Exception):
    """The demo did not go as expected; the message says what was observed."""


def preemptor(
    node: str, gpus: int, *, namespace: str = NAMESPACE, seconds: int = PREEMPTOR_SECONDS
) -> list[dict[str, Any]]:
    """A pod of higher priority that requests all GPUs of a node for a short time."""
    return [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": PREEMPTOR},
            "value": 1_000_000,
        },
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": PREEMPTOR, "namespace": namespace},
            "spec": {
                "priorityClassName": PREEMPTOR,
                "restartPolicy": "Never",
                "automountServiceAccountToken": False,
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": {"kubernetes.io/hostname": node},
                "securityContext": {
                    "runAsNonRoot": True,
                    "runAsUser": stage.TRAINER_USER,
                    "seccompProfile": {"type": "RuntimeDefault"},
                },
                "containers": [
                    {
                        "name": "work",
                        "image": stage.BASE_IMAGE,
                        "command": ["sleep", str(seconds)],
                        "securityContext": {
                            "allowPrivilegeEscalation": False,
                            "capabilities": {"drop": ["ALL"]},
                        },
                        "resources": {"limits": {"nvidia.com/gpu": str(gpus)}},
                    }
                ],
            },
        },
    ]


def summary(job: dict[str, Any]) -> str:
    """A job's status in one line."""
    status = job.get("status", {})
    progress = status.get("progress", {})
    parts = [f"{job['metadata']['name']}: {status.get('phase', 'Pending')}"]
    if status.get("attempt"):
        parts.append(f"attempt {status['attempt']}")
    if progress.get("steps"):
        parts.append(
            f"step {progress.get('step', 0)}/{progress['steps']} (committed {progress.get('committedStep', 0)})"
        )
    if progress.get("distillationLoss") is not None:
        parts.append(f"dis_loss {progress['distillationLoss']:.3f}")
    if progress.get("studentMap") is not None:
        parts.append(f"mAP {progress['studentMap']:.3f}")
    return " · ".join([*parts, *waits_for(status)])


def condition(status: dict[str, Any], kind: str) -> dict[str, Any]:
    """The condition of this type; empty if the status has none."""
    return next((c for c in status.get("conditions", []) if c["type"] == kind), {})


def waits_for(status: dict[str, Any]) -> list[str]:
    """What a job that does not run yet waits for, unless it is only that its pods start."""
    running = condition(status, "Running")
    tells = status.get("phase") in ("Pending", "Starting") and running.get("reason") != Reason.PODS_STARTING
    return [f"{running['reason']}: {running['message']}"] if tells and running.get("reason") else []


def watch(
    cluster: Cluster,
    narrator: Narrator,
    name: str,
    until: Callable[[dict[str, Any]], bool],
    *,
    seconds: float,
    poll: float = 1,
) -> dict[str, Any]:
    """Print a job's changes until a condition holds. Raises TourFailed if the job fails or takes too long."""
    deadline = time.monotonic() + seconds
    printed = ("", 0.0)
    while True:
        job = stage.get_job(cluster, NAMESPACE, name)
        status = job.get("status", {})
        key = f"{status.get('phase')} {status.get('attempt')} {status.get('progress', {}).get('epoch')}"
        if key != printed[0] or time.monotonic() - printed[1] > 20:
            narrator.say(f"  {summary(job)}")
            printed = (key, time.monotonic())
        if until(job):
            return job
        if status.get("phase") == "Failed":
            failed = condition(status, "Failed")
            raise TourFailed(f"{name} failed: {failed.get('reason')}: {failed.get('message')}")
        if time.monotonic() > deadline:
            raise TourFailed(f"{name} took longer than {seconds:.0f} s; last status: {summary(job)}")
        time.sleep(poll)


def succeeded(job: dict[str, Any]) -> bool:
    """Whether the job has succeeded."""
    return job.get("status", {}).get("phase") == "Succeeded"


def training(job: dict[str, Any]) -> bool:
    """Whether the job has finished two epochs and committed a checkpoint."""
    progress = job.get("status", {}).get("progress", {})
    return progress.get("epoch", 0) >= 2 and progress.get("committedStep", 0) > 0


def recovering(job: dict[str, Any]) -> bool:
    """Whether the job is recovering and the status has the reason for the end of the first attempt."""
    status = job.get("status", {})
    return status.get("phase") == "Recovering" and "reason" in status["attempts"][0]


def clear(cluster: Cluster) -> None:
    """Remove the objects of an earlier demo from a kept cluster."""
    cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--timeout=90s")
    for claim in ("digits", "runs", "workspace"):
        cluster.kubectl("delete", "pv", f"{NAMESPACE}-{claim}", "--ignore-not-found")


def node_of_worker(cluster: Cluster, name: str) -> str:
    """The node on which the job's second pod runs."""
    pods = json.loads(cluster.kubectl("get", "pods", "-n", NAMESPACE, "-l", f"{Label.JOB}={name}", "-o", "json"))[
        "items"
    ]
    return next(str(pod["spec"]["nodeName"]) for pod in pods if pod["metadata"]["labels"].get(COMPLETION_INDEX) == "1")


def tell(cluster: Cluster, narrator: Narrator, *, gpus: int) -> dict[str, Any]:
    """Run the demo and return the final distilled job. Raises TourFailed."""
    for name, file in JOBS.items():
        narrator.say(f"kubectl apply -f examples/digits/{file}")
        stage.apply(cluster, in_namespace(stage.with_workspace(stage.read_yaml(EXAMPLES / file))))
        if name != STUDENT:
            watch(cluster, narrator, name, succeeded, seconds=600)
    watch(cluster, narrator, STUDENT, training, seconds=300)

    node = node_of_worker(cluster, STUDENT)
    narrator.say(f"an urgent pod of higher priority requests all GPUs of {node}: the scheduler preempts the worker")
    stage.apply(cluster, *preemptor(node, gpus))
    job = watch(cluster, narrator, STUDENT, recovering, seconds=60, poll=0.2)
    first = job["status"]["attempts"][0]
    narrator.say(f"  phase {job['status']['phase']}, cause {first.get('reason')}: {first.get('message', '')}")
    if first.get("reason") != "Preempted":
        raise TourFailed(f"expected the reason Preempted, but the status has {first.get('reason')}")
    return watch(cluster, narrator, STUDENT, succeeded, seconds=600)


def in_namespace(job: dict[str, Any]) -> dict[str, Any]:
    """The job in the demo's namespace."""
    return {**job, "metadata": {**job["metadata"], "namespace": NAMESPACE}}
