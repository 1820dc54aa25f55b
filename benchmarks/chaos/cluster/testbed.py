"""The cluster with the operator and volumes, and identical jobs in it."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import ROOT
from benchmarks.chaos.cluster.disruptions import NAMESPACE
from benchmarks.chaos.cluster.watching import Follower
from benchmarks.outcome import Outcome
from benchmarks.small_run import IMGSZ, make_volumes
from digits.demo import stage
from distill_api.constants import API_VERSION, KIND, Label
from testcluster import Cluster

IMAGES, BATCH = 128, 4
STEPS_PER_EPOCH = IMAGES // BATCH
INTERVAL_SECONDS = 3
"""checkpoint.intervalSeconds: short, so that there are commits between two disruptions."""


@dataclass
class Testbed:
    """The cluster, and the volumes of the jobs."""

    cluster: Cluster
    volumes: Path

    def prepare(self) -> None:
        """Install operator, claims, data set and teacher, and copy the trainer, whose sources may change meanwhile."""
        for image in (stage.OPERATOR_IMAGE, stage.BASE_IMAGE):
            self.cluster.load_image(image)
        stage.install_operator(self.cluster)
        for verb in ("restart", "status"):  # the operator of a kept cluster may run an older image with the same tag
            self.cluster.kubectl("rollout", verb, "deployment/distill-operator", "-n", stage.SYSTEM_NAMESPACE)
        self.cluster.kubectl("uncordon", *self.cluster.node_names)  # clean up a kept cluster
        self.kubectl("delete", "dj", "--all", "--timeout=90s")
        self.kubectl("wait", "pods", "-l", Label.JOB, "--for=delete", "--timeout=90s")
        shutil.rmtree(self.volumes, ignore_errors=True)
        stage.make_directories(self.volumes)
        make_volumes(self.volumes, IMAGES)
        shutil.move(self.volumes / "models", self.volumes / "runs" / "models")
        for package in ("crds/distill_api", "trainer/distill_trainer"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, self.volumes / "source" / Path(package).name, ignore=ignored)
        stage.prepare_namespace(self.cluster, NAMESPACE, self.volumes)

    def kubectl(self, *arguments: str) -> str:
        """Run kubectl in the jobs' namespace."""
        return self.cluster.kubectl("-n", NAMESPACE, *arguments)

    def create(self, name: str, epochs: int, failures: int) -> Follower:
        """Create a job with maxFailures `failures`, and return a Follower for it."""
        job: dict[str, Any] = {
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {"name": name, "namespace": NAMESPACE},
            "spec": {
                "student": {"model": "yolo26n.yaml"},
                "teacher": {"model": "models/teacher.pt", "precision": "fp32"},
                "dataset": {"config": "digits.yaml"},
                "training": {
                    "epochs": epochs, "batch": BATCH, "nbs": 2 * BATCH, "imgsz": IMGSZ, "optimizer": "SGD",
                    "workers": 0, "plots": False, "warmup_epochs": 1, "close_mosaic": 2, "amp": "fp32",
                },
                "nodes": 2,
                "accelerators": {"perNode": 1},
                "device": "cpu",
                "checkpoint": {"intervalSeconds": INTERVAL_SECONDS},
                "recovery": {
                    "gracePeriodSeconds": 30, "maxFailures": failures,
                    "avoidNodeSeconds": 0,  # the nodes are well, and there is none to spare
                },
                "volumes": {"checkpoints": {"claimName": "runs"}, "data": {"claimName": "digits"},
                            "models": {"claimName": "runs"}},
            },
        }  # fmt: skip
        job = stage.with_workspace(job)
        (container,) = job["spec"]["template"]["spec"]["containers"]
        sources = f"{stage.WORKSPACE}/{(self.volumes / 'source').relative_to(stage.ROOT)}"
        container["env"] = [
            {**one, "value": sources} if one["name"] == "PYTHONPATH" else one for one in container["env"]
        ]
        stage.apply(self.cluster, job)
        return Follower(self.cluster.kubeconfig, NAMESPACE, name)

    def outcome(self, name: str, steps: int) -> Outcome:
        """The results of a job."""
        return Outcome.of(self.volumes / "runs" / name, steps)

    def describe(self) -> str:
        """Objects, events and logs that explain a failure."""
        commands = (
            ["get", "dj,jobs,pods", "-o", "wide"],
            ["get", "events", "--sort-by=.lastTimestamp"],
            ["logs", "-l", Label.JOB, "--all-containers", "--tail=30", "--prefix"],
            ["logs", "-n", stage.SYSTEM_NAMESPACE, "deploy/distill-operator", "--tail=60"],
        )
        return self.cluster.transcript(NAMESPACE, commands)
