"""Prepares a cluster for training runs: claims, data set, operator. Used by the demo and by tests."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from distill_api.constants import TRAINER_CONTAINER, TRAINER_USER
from testcluster import Cluster, ExternalCluster

ROOT = Path(__file__).parents[3]
CHART = ROOT / "charts" / "distill-operator"
SYSTEM_NAMESPACE = "distill-system"
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
BASE_IMAGE = "distill-base:dev"
OPERATOR_IMAGE = "distill-operator:dev"
TRAINER_IMAGE = "distill-trainer:dev"
WORKSPACE = "/workspace"


def open_cluster(gpus: int, *, audit: bool = False) -> tuple[Cluster | ExternalCluster, bool]:
    """The cluster to use, and whether it was started here: that of DISTILL_KUBECONFIG, the running one-machine cluster,
    or a new one of two nodes, which logs all requests if `audit`.

    The claims point to this checkout, so nodes of an external cluster must mount it at the same path (kind:
    extraMounts).
    """
    given = Cluster.from_env()
    if given is not None:
        given.pretend_gpus(gpus)
        return given, False
    found = Cluster.running()
    starts = found is None or not found.healthy
    return Cluster.up(nodes=2, gpus=gpus, audit=audit and starts), starts


def namespace(name: str) -> dict[str, Any]:
    """A namespace that enforces the restricted Pod Security Standard."""
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": RESTRICTED}}


def host_claim(name: str, in_namespace: str, path: Path, *, mode: str, gibibytes: int = 10) -> list[dict[str, Any]]:
    """A claim bound to a directory of this machine. The restricted standard forbids hostPath volumes in pods."""
    volume = f"{in_namespace}-{name}"
    storage = {"storage": f"{gibibytes}Gi"}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": volume},
            "spec": {
                "capacity": storage,
                "accessModes": [mode],
                "persistentVolumeReclaimPolicy": "Retain",
                "storageClassName": "",
                "claimRef": {"namespace": in_namespace, "name": name},
                "hostPath": {"path": str(path), "type": "Directory"},
            },
        },
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": name, "namespace": in_namespace},
            "spec": {
                "accessModes": [mode],
                "storageClassName": "",
                "volumeName": volume,
                "resources": {"requests": storage},
            },
        },
    ]


def workspace_template() -> dict[str, Any]:
    """A pod template that runs the trainer from this checkout and its virtual environment, mounted read-only.

    This avoids building and loading a trainer image of several gigabytes after each change.
    """
    sources = ":".join(f"{WORKSPACE}/{folder}" for folder in ("crds", "trainer"))
    return {
        "spec": {
            "containers": [
                {
                    "name": TRAINER_CONTAINER,
                    "image": BASE_IMAGE,
                    "imagePullPolicy": "IfNotPresent",
                    "command": [f"{WORKSPACE}/.venv/bin/python", "-m", "distill_trainer"],
                    "env": [
                        {"name": "PYTHONPATH", "value": sources},
                        {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"},
                        {"name": "OMP_NUM_THREADS", "value": "1"},  # all nodes are this one machine
                    ],
                    "volumeMounts": [{"name": "workspace", "mountPath": WORKSPACE, "readOnly": True}],
                }
            ],
            "volumes": [{"name": "workspace", "persistentVolumeClaim": {"claimName": "workspace", "readOnly": True}}],
        }
    }


def with_workspace(job: dict[str, Any]) -> dict[str, Any]:
    """The same DistillJob with `workspace_template`."""
    return {**job, "spec": {**job["spec"], "template": workspace_template()}}


def make_directories(root: Path) -> None:
    """Create data/ and runs/ in `root`; runs/ belongs to the trainer's user."""
    for name in ("data", "runs"):
        (root / name).mkdir(parents=True, exist_ok=True)
        (root / name).chmod(0o755)
    os.chown(root / "runs", TRAINER_USER, TRAINER_USER)


def make_digits(out: Path, *, train: int, val: int, imgsz: int, seed: int = 0) -> None:
    """Generate the digits data set in `out`, unless it exists with the same settings."""
    wanted = {"train": train, "val": val, "imgsz": imgsz, "seed": seed}
    marker = out / ".made"
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return
    shutil.rmtree(out, ignore_errors=True)
    arguments = [item for name, value in wanted.items() for item in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "digits.generate", "--task", "detect", "--out", str(out), *arguments]
    subprocess.run(command, check=True)
    marker.write_text(json.dumps(wanted))


def prepare_namespace(cluster: Cluster, name: str, volumes: Path) -> None:
    """Create a restricted namespace with the claims `digits` (data), `runs` (checkpoints) and `workspace`."""
    apply(
        cluster,
        namespace(name),
        *host_claim("digits", name, volumes / "data", mode="ReadOnlyMany"),
        *host_claim("runs", name, volumes / "runs", mode="ReadWriteMany"),
        *host_claim("workspace", name, ROOT, mode="ReadOnlyMany"),
    )


def apply(cluster: Cluster, *documents: dict[str, Any]) -> None:
    """Run `kubectl apply` for the documents."""
    cluster.kubectl("apply", "-f", "-", stdin=yaml.safe_dump_all(documents))


def install_operator(cluster: Cluster, **values: str) -> None:
    """Install this checkout's chart with Helm in a restricted namespace."""
    apply(cluster, namespace(SYSTEM_NAMESPACE))
    image, tag = OPERATOR_IMAGE.split(":")
    settings = {
        "image.repository": image,
        "image.tag": tag,
        "trainer.image": TRAINER_IMAGE,
        **values,
    }
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    cluster.helm(
        "upgrade", "--install", "distill-operator", str(CHART),
        "--namespace", SYSTEM_NAMESPACE, "--wait", "--timeout", "120s", *flags,
    )  # fmt: skip


def monitors(cluster: Cluster | ExternalCluster) -> list[dict[str, Any]]:
    """The chart's PodMonitor and ServiceMonitor: what of ranks and operator a Prometheus scrapes."""
    kinds = ("PodMonitor", "ServiceMonitor")
    enabled = [f"--set=monitoring.{kind[0].lower()}{kind[1:]}.enabled=true" for kind in kinds]
    rendered = cluster.helm(
        "template", "distill-operator", str(CHART), "--namespace", SYSTEM_NAMESPACE,
        "--api-versions", "monitoring.coreos.com/v1", "--set", f"trainer.image={TRAINER_IMAGE}", *enabled,
    )  # fmt: skip
    return [document for document in yaml.safe_load_all(rendered) if document and document["kind"] in kinds]


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file with one document."""
    document = yaml.safe_load(path.read_text())
    assert isinstance(document, dict)
    return document


def get_job(cluster: Cluster, namespace_: str, name: str) -> dict[str, Any]:
    """Get a DistillJob from the API server."""
    job: dict[str, Any] = json.loads(cluster.kubectl("get", "dj", name, "-n", namespace_, "-o", "json"))
    return job
