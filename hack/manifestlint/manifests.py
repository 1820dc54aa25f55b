"""The manifests that are checked: the chart with several sets of values, and what the operator makes for a job."""

import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from distill_api.job import DistillJob
from distill_api.status import Attempt
from distill_operator.builders import build_placeholders, gang
from distill_operator.types.observed import Observed
from distill_operator.types.settings import Settings
from testcluster import settings as testcluster
from testcluster.artifacts import binaries

CHART = testcluster.CHECKOUT / "charts" / "distill-operator"
EXAMPLE = testcluster.CHECKOUT / "examples" / "digits" / "distilljob.yaml"
Object = dict[str, Any]

VALUES: dict[str, dict[str, Any]] = {
    "plain": {},
    "namespaced": {"watchNamespaces": ["team-a", "team-b"]},
    "replicas": {"replicas": 2},
    "openshift": {"podSecurityContext": {"runAsUser": None, "runAsGroup": None}, "trainer": {"userId": None}},
    "limited": {
        "admissionPolicy": {"enabled": True, "images": ["registry.example.com/ml/"], "priorityClasses": ["low"]},
        "operator": {"forcedPodDeletion": "never"},
        "image": {"digest": f"sha256:{'a' * 64}"},
        "trainer": {"digest": f"sha256:{'b' * 64}"},
    },
    "monitored": {
        "monitoring": {name: {"enabled": True} for name in ("serviceMonitor", "podMonitor", "prometheusRule")},
    },
}
"""By the name of the release and of its namespace, so that no policy of one set selects pods of another."""


def write(folder: Path) -> None:
    """Write a file of manifests for each set of values. Raises RuntimeError if helm fails."""
    for name, values in VALUES.items():
        chart = rendered(name, values)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all([*chart, *made_by_the_operator(name, chart)]))


def rendered(name: str, values: dict[str, Any]) -> list[Object]:
    """What `helm template` makes of the chart."""
    options = ["--namespace", name, "--values", "-", "--api-versions", "monitoring.coreos.com/v1"]
    command = [str(binaries.helm()), "template", name, str(CHART), *options]
    done = subprocess.run(command, input=yaml.safe_dump(values), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"helm cannot render the chart with the values {name}:\n{done.stderr}")
    return [document for document in yaml.safe_load_all(done.stdout) if document]


def told(chart: list[Object]) -> Settings:
    """What the operator reads from the environment that the chart's Deployment gives it."""
    (deployment,) = [obj for obj in chart if obj["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return Settings.from_environment({entry["name"]: entry.get("value", "a-pod") for entry in container["env"]})


def made_by_the_operator(name: str, chart: list[Object]) -> list[Object]:
    """What the operator of this chart makes for an elastic job that brings its own claims."""
    settings = told(chart)
    document = yaml.safe_load(EXAMPLE.read_text())
    document["metadata"] = {"name": name, "namespace": f"{name}-jobs", "uid": f"uid-of-{name}"}
    claim = {"claimTemplate": {"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}}}
    document["spec"] |= {"elastic": {"minNodes": 1}, "volumes": dict.fromkeys(("checkpoints", "data", "models"), claim)}
    job = DistillJob.model_validate(document)
    observed = Observed(job=job, namespace=f"{name}-jobs")
    attempt = Attempt(number=1, nodes=2, started_at=datetime.now(UTC))
    made = [create.manifest for create in gang(observed, attempt, settings)]
    return [*made, build_placeholders(observed, 1, settings)]
