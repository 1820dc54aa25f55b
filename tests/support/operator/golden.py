"""The golden stored objects, and the script that makes those of a version: run it once when the version is released.

    python -m tests.support.operator.golden

writes CRD, stored objects, and what the chart and the operator make, of the version in pyproject.toml to
tests/contract/golden/<version>. They are never made again: later operators have to read what this one has written.
"""

import copy
import json
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from distill_api.generate.crd import crd
from distill_api.job import read_stored
from distill_api.reasons import Reason
from distill_operator.builders import gang
from distill_operator.types.observed import ContainerEnd, Observed
from distill_operator.types.settings import Settings
from testcluster.artifacts import binaries
from tests.support.machine.python import ROOT
from tests.support.operator.cluster import Cluster
from tests.support.operator.samples import UID, at, report

GOLDEN = ROOT / "tests" / "contract" / "golden"
Object = dict[str, Any]

START = [*("operate", "controllers", "operate", "kubelets", "operate", "train") * 2, "commit", "train", "operate"]
MORE_SPEC = {
    "elastic": {"minNodes": 1},
    "export": {"formats": ["onnx"]},
    "report": {"baseline": "plain"},
    "scheduling": {"priorityClassName": "low", "tolerations": [{"key": "gpu", "operator": "Exists"}]},
    "template": {"metadata": {"labels": {"team": "vision"}}, "spec": {"containers": [{"name": "trainer"}]}},
    "image": "distill-trainer:pinned",
    "ttlSecondsAfterFinished": 3600,
}


def newest() -> Path:
    """The folder of the last released version."""
    return max(
        (path for path in GOLDEN.iterdir() if path.is_dir()), key=lambda path: tuple(map(int, path.name.split(".")))
    )


def stored_objects() -> list[Any]:
    """Path and content of every golden object, as parameters of a test."""
    return sorted(path for path in GOLDEN.glob("*/*.yaml") if path.name != "crd.yaml")


def schema_of(definition: Object) -> Object:
    """The OpenAPI schema of a DistillJob in a CRD."""
    schema: Object = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def defaulted(value: Any, schema: Object) -> Any:
    """The value with the defaults that the API server adds."""
    if isinstance(value, list) and "items" in schema:
        return [defaulted(item, schema["items"]) for item in value]
    if not isinstance(value, dict):
        return value
    filled = dict(value)
    for name, sub in schema.get("properties", {}).items():
        if name not in filled and "default" in sub:
            filled[name] = copy.deepcopy(sub["default"])
        if name in filled:
            filled[name] = defaulted(filled[name], sub)
    return filled


def lives() -> Iterator[tuple[str, Cluster]]:
    """Jobs at moments of their lives."""
    yield "starting", live("operate")
    yield "terminating", live(*START, "preempt", "operate")
    running = live(*START, "oom", "operate", "operate", "controllers", *["operate"] * 4)
    running.seconds += 30
    while not (running.dj.status.attempt == 2 and running.dj.status.phase == "Running"):
        for name in ("operate", "controllers", "kubelets", "train"):
            running.step_world(name)
    yield "running", running
    yield "suspended", live(*START, "suspend", *["operate", "controllers", "kubelets", "controllers"] * 6, "operate")
    succeeded = live(*START, "kill", "operate")
    succeeded.settle()
    yield "succeeded", succeeded
    failed = live(*START)
    for pod in list(failed.pods.values()):
        told = ContainerEnd("trainer", 78, at(failed.seconds), "Error", report("permanent", Reason.CONFIG_INVALID))
        failed.set_pod(pod, phase="Failed", end=told)
    for name in ("operate", "controllers") * 3:
        failed.step_world(name)
    yield "failed", failed


def live(*steps: str) -> Cluster:
    cluster = Cluster()
    for step in steps:
        cluster.step_world(step)
    return cluster


RELEASE, NAMESPACE = "distill", "distill-system"
"""Of the chart whose objects are kept."""
KEPT_ELSEWHERE = ("CustomResourceDefinition", "ConfigMap")
"""The CRD is a file of its own; the dashboard says nothing about jobs."""


def installed(folder: Path) -> list[Object]:
    """What `helm install` made in this version, without CRD and dashboard."""
    return list(yaml.safe_load_all((folder / "installed" / "chart.yaml").read_text()))


def children(folder: Path) -> list[Object]:
    """What this version's operator made for the open attempt of running.yaml."""
    return list(yaml.safe_load_all((folder / "installed" / "children.yaml").read_text()))


def write_installed(folder: Path, running: Cluster) -> None:
    """Write what `installed` and `children` read."""
    folder = folder / "installed"
    folder.mkdir()
    command = [binaries.helm(), "template", RELEASE, ROOT / "charts/distill-operator", "--namespace", NAMESPACE]
    rendered = yaml.safe_load_all(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    chart = [obj for obj in rendered if obj and obj["kind"] not in KEPT_ELSEWHERE]
    (deployment,) = [obj for obj in chart if obj["kind"] == "Deployment"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    settings = Settings.from_environment({entry["name"]: entry.get("value", "pod") for entry in container["env"]})
    job = running.dj
    made = gang(Observed(job=job, namespace="team"), job.status.attempts[-1], settings)
    manifests = json.loads(json.dumps([create.manifest for create in made]))  # without the types of its words
    for name, objects in (("chart", chart), ("children", manifests)):
        (folder / f"{name}.yaml").write_text(yaml.safe_dump_all(objects, sort_keys=False, width=110))


def main() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    folder: Path = GOLDEN / version
    folder.mkdir()
    shutil.copy(ROOT / "crds" / "distilljob.yaml", folder / "crd.yaml")
    for name, cluster in lives():
        job = cluster.dj.to_wire()
        job["metadata"] = {"name": "tiny", "namespace": "team", "uid": UID, "generation": 1, "resourceVersion": "1"}
        if name == "suspended":
            job["spec"] = {**cluster.dj.spec.to_wire(), **MORE_SPEC}
        stored = defaulted({**job, "status": cluster.dj.status.to_wire()}, schema_of(crd()))
        read_stored(stored)
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(stored, sort_keys=False, width=110))
        if name == "running":
            write_installed(folder, cluster)
    print(f"wrote {folder}")


if __name__ == "__main__":
    main()
