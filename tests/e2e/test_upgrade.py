"""helm upgrade and rollback while a gang trains: the operator is replaced, and nothing else."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from digits.demo import stage
from tests.e2e.jobs import Jobs, attempts, progress

RELEASE = "distill-operator"


def helm(jobs: Jobs, *arguments: str) -> str:
    return jobs.cluster.helm(*arguments, "--namespace", stage.SYSTEM_NAMESPACE)


def operator_pods(jobs: Jobs) -> set[str]:
    selector = ("-l", "app.kubernetes.io/component=operator")
    listed = jobs.cluster.kubectl("-n", stage.SYSTEM_NAMESPACE, "get", "pods", *selector, "-o", "json")
    return {pod["metadata"]["uid"] for pod in json.loads(listed)["items"]}


def gang(jobs: Jobs, name: str) -> dict[str, Any]:
    """What must not change: pods, their restarts, and the attempt."""
    pods = jobs.pods(name)
    job = jobs.get(name)
    return {
        "pods": [pod["metadata"]["uid"] for pod in pods],
        "containers": [c["containerID"] for pod in pods for c in pod["status"]["containerStatuses"]],
        "attempts": [(attempt["number"], attempt["jobUid"]) for attempt in attempts(job)],
        "restarts": job["status"]["restarts"],
    }


def trains_on(jobs: Jobs, name: str) -> None:
    step = progress(jobs.get(name))["step"]
    jobs.wait(name, lambda job: progress(job)["step"] > step + 5, seconds=90, what="steps under the new operator")


def test_an_upgrade_and_a_rollback_replace_the_operator_alone(jobs: Jobs, tmp_path: Path) -> None:
    jobs.create("upgraded", jobs.spec(epochs=400))
    jobs.in_mid_training("upgraded")
    before, operator = gang(jobs, "upgraded"), operator_pods(jobs)
    revision = str(json.loads(helm(jobs, "history", RELEASE, "-o", "json"))[-1]["revision"])

    newer = tmp_path / "distill-operator"
    shutil.copytree(stage.CHART, newer)
    about = yaml.safe_load((newer / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "99.0.0"}))
    try:
        helm(jobs, "upgrade", RELEASE, str(newer), "--reset-then-reuse-values", "--wait", "--timeout", "120s")
        assert operator_pods(jobs).isdisjoint(operator)
        trains_on(jobs, "upgraded")
        assert gang(jobs, "upgraded") == before
        operator = operator_pods(jobs)
    finally:
        helm(jobs, "rollback", RELEASE, revision, "--wait", "--timeout", "120s")
    assert operator_pods(jobs).isdisjoint(operator)
    trains_on(jobs, "upgraded")
    assert gang(jobs, "upgraded") == before
