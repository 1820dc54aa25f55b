"""The hands of the end-to-end tests: make a job, wait for what should become true of it, disturb its pods."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from digits.demo import stage
from distill_api.constants import COMPLETION_INDEX, Label
from distill_api.reasons import Reason
from testcluster import Cluster
from tests.support.machine.python import command, environment

NAMESPACE = "distill-e2e"
Job = dict[str, Any]

KILL_A_RANK = """
import os, signal
for pid in sorted(int(name) for name in os.listdir('/proc') if name.isdigit()):
    try:
        name = open(f'/proc/{pid}/comm').read()
    except OSError:
        continue
    if name.startswith('rank '):
        os.kill(pid, signal.SIGKILL)
        print(pid)
        break
"""


class Jobs:
    """DistillJobs of one test."""

    def __init__(self, cluster: Cluster, volumes: Path) -> None:
        self.cluster = cluster
        self.volumes = volumes
        self._made: list[str] = []

    def spec(self, *, epochs: int = 2, teacher: str | None = "models/teacher.pt", **training: Any) -> dict[str, Any]:
        """A distillation over two nodes on the small data set: 16 steps an epoch."""
        spec: dict[str, Any] = {
            "student": {"model": "yolo26n.yaml"},
            "dataset": {"config": "digits.yaml"},
            "training": {
                "epochs": epochs,
                "batch": 4,
                "imgsz": 64,
                "workers": 0,
                "warmup_epochs": 0,
                "val": False,
                "plots": False,
                "amp": "fp32",
                **training,
            },
            "nodes": 2,
            "accelerators": {"perNode": 1},
            "device": "cpu",
            "checkpoint": {"intervalSeconds": 5},
            "recovery": {"gracePeriodSeconds": 30},
            "volumes": {name: {"claimName": claim} for name, claim in CLAIMS.items()},
        }
        if teacher is not None:
            spec["teacher"] = {"model": teacher, "precision": "fp32"}
        return spec

    def create(self, name: str, spec: dict[str, Any], *, workspace: bool = True) -> None:
        """Apply a job; with `workspace` its pods run this checkout from the machine's virtual environment."""
        job = self.document(name, spec)
        shutil.rmtree(self.volumes / "runs" / name, ignore_errors=True)  # of a kept cluster's earlier run
        self._made.append(name)
        stage.apply(self.cluster, stage.with_workspace(job) if workspace else job)

    @staticmethod
    def document(name: str, spec: dict[str, Any]) -> Job:
        """A DistillJob."""
        return {
            "apiVersion": "distilljob.dev/v1alpha1",
            "kind": "DistillJob",
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": spec,
        }

    def get(self, name: str) -> Job:
        """The job as the API server has it."""
        return stage.get_job(self.cluster, NAMESPACE, name)

    def patch(self, name: str, spec: dict[str, Any]) -> None:
        """Change fields of a job's spec."""
        self.kubectl("patch", "dj", name, "--type=merge", "-p", json.dumps({"spec": spec}))

    def kubectl(self, *arguments: str) -> str:
        """kubectl in the tests' namespace."""
        return self.cluster.kubectl("-n", NAMESPACE, *arguments)

    def distill(self, *arguments: str) -> str:
        """What the command prints for a user of the tests' namespace, without its line breaks."""
        ended = self.run_distill(*arguments)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        return " ".join(ended.stdout.split())

    def run_distill(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The command of that user, however it ends."""
        where = ("-n", NAMESPACE, "--kubeconfig", str(self.cluster.kubeconfig))
        return subprocess.run(
            command("distill_cli.main", *arguments, *where),
            capture_output=True,
            text=True,
            check=False,
            timeout=240,
            env=environment(NO_COLOR="1"),
        )

    def told(self, name: str, reason: str) -> None:
        """Both commands of a user who looks for the cause name it, and `why` says what to do."""
        why = self.distill("why", name)
        assert reason in why
        assert Reason(reason).facts.remedy.split(".")[0] in why
        assert reason in self.distill("status", name)

    def pods(self, name: str) -> list[dict[str, Any]]:
        """The job's pods, by node rank."""
        pods = json.loads(self.kubectl("get", "pods", "-l", f"{Label.JOB}={name}", "-o", "json"))["items"]
        return sorted(pods, key=lambda pod: int(pod["metadata"]["labels"].get(COMPLETION_INDEX, "-1")))

    def logs(self, name: str) -> str:
        """All that the job's pods have written; nothing of a pod that is deleted meanwhile."""
        written = []
        for pod in self.pods(name):
            try:
                written.append(self.kubectl("logs", pod["metadata"]["name"], "--tail=-1"))
            except RuntimeError as error:
                if "NotFound" not in str(error):
                    raise
        return "\n".join(written)

    def wait(self, name: str, until: Callable[[Job], bool], *, seconds: float, what: str) -> Job:
        """Wait until something is true of a job, and return it. A job that ends Failed meanwhile fails the test."""
        deadline = time.monotonic() + seconds
        while True:
            job = self.get(name)
            if until(job):
                return job
            assert phase(job) != "Failed", f"{name} ended Failed while waiting for: {what}\n{conditions(job)}"
            assert time.monotonic() < deadline, (
                f"{name}: not within {seconds:.0f} s: {what}\n{json.dumps(job['status'])}"
            )
            time.sleep(0.5)

    def complete(self, name: str, *, seconds: float = 240) -> Job:
        """Wait for the job to succeed."""
        return self.wait(name, lambda job: phase(job) == "Succeeded", seconds=seconds, what="success")

    def failed(self, name: str, *, seconds: float = 90) -> dict[str, Any]:
        """Wait for the job to fail, and return the condition Failed."""
        job = self.wait_terminal(name, seconds=seconds)
        assert phase(job) == "Failed", job["status"]
        return conditions(job)["Failed"]

    def wait_terminal(self, name: str, *, seconds: float) -> Job:
        """Wait for the job's end, whichever it is."""
        deadline = time.monotonic() + seconds
        while phase(job := self.get(name)) not in ("Succeeded", "Failed"):
            assert time.monotonic() < deadline, f"{name} still {phase(job)}: {json.dumps(job.get('status'))}"
            time.sleep(0.5)
        return job

    def in_mid_training(self, name: str, *, steps: int = 20) -> Job:
        """Wait until the first attempt has made and committed some steps."""
        return self.wait(
            name,
            lambda job: progress(job).get("step", 0) >= steps and progress(job).get("committedStep", 0) > 0,
            seconds=120,
            what=f"{steps} steps and a committed checkpoint",
        )

    def kill_a_rank(self, pod: str) -> None:
        """SIGKILL a training process inside a pod, as the kernel's OOM killer would."""
        assert self.kubectl("exec", pod, "-c", "trainer", "--", "python3", "-c", KILL_A_RANK).strip()

    def delete_all(self) -> None:
        """Delete the test's jobs and wait until their pods are gone."""
        for name in self._made:
            self.kubectl("delete", "dj", name, "--ignore-not-found", "--timeout=90s")
            self.kubectl("wait", "pods", "-l", f"{Label.JOB}={name}", "--for=delete", "--timeout=90s")

    def describe(self) -> str:
        """Everything that explains a failed test: jobs, pods, events, logs."""
        commands = (
            ["get", "dj", "-o", "yaml"],
            ["get", "jobs,pods,svc", "-o", "wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["logs", "-l", Label.JOB, "--all-containers", "--tail=40", "--prefix"],
            ["logs", "-n", stage.SYSTEM_NAMESPACE, "deploy/distill-operator", "--tail=80"],
        )
        return self.cluster.transcript(NAMESPACE, commands)


CLAIMS = {"checkpoints": "runs", "data": "digits", "models": "runs"}


def phase(job: Job) -> str | None:
    """status.phase, or None before the operator has seen the job."""
    value: str | None = job.get("status", {}).get("phase")
    return value


def progress(job: Job) -> dict[str, Any]:
    """status.progress, empty before the first step."""
    value: dict[str, Any] = job.get("status", {}).get("progress", {})
    return value


def conditions(job: Job) -> dict[str, dict[str, Any]]:
    """status.conditions by type."""
    return {condition["type"]: condition for condition in job["status"].get("conditions", [])}


def attempts(job: Job) -> list[dict[str, Any]]:
    """status.attempts, oldest first."""
    value: list[dict[str, Any]] = job["status"]["attempts"]
    return value
