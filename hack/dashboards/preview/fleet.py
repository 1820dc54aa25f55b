"""A small fleet for the pictures: a real API server, scheduler, operator and trainers; its GPUs are pretended.

Two students learn from a teacher, each on one node; a third waits for a node. One student is
evicted and resumes from the checkpoint that it commits; the processes of both are killed, which loses work. The story
ends while the job of the picture still runs.
"""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from dashboards.preview.kubelet import ProcessKubelet
from digits.generate import generate
from distill_api.constants import JobFile
from distill_api.metrics import OperatorMetric
from testcluster import ControlPlane
from tests.support.apiserver.api import Api, Object, install_crd, wait_for
from tests.support.apiserver.nodes import Nodes, Rank0
from tests.support.apiserver.operatorprocess import OperatorProcess, chart_user
from tests.support.apiserver.team import Team
from tests.support.machine.python import ROOT
from tests.support.prometheus.discovery import Discovery
from tests.support.prometheus.monitors import ScrapeConfig, scrape_configs
from tests.support.prometheus.server import PrometheusServer

CHART = ROOT / "charts" / "distill-operator"
RULES = CHART / "files" / "recording-rules.yaml"
NAMESPACE = "vision"
IMAGES = {"train": 192, "val": 64}
IMGSZ = 128
TRAINING = {"batch": 8, "nbs": 8, "imgsz": IMGSZ, "optimizer": "AdamW", "lr0": 0.004, "mosaic": 0.0, "fliplr": 0.0,
            "warmup_epochs": 1, "workers": 0}  # fmt: skip
SCRAPE_SECONDS = 5.0
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True)
class Story:
    """When it happened, in Unix time, and the job to look at."""

    start: float
    end: float
    job: str


def job(name: str, student: str, epochs: int, **spec: Any) -> Object:
    """A DistillJob on one node, with two of its GPUs."""
    return {
        "apiVersion": "distilljob.dev/v1alpha1",
        "kind": "DistillJob",
        "metadata": {"name": name},
        "spec": {
            "student": {"model": student},
            "dataset": {"config": "digits.yaml"},
            "training": {**TRAINING, "epochs": epochs},
            "nodes": 1,
            "accelerators": {"perNode": 2},
            "device": "cpu",
            "checkpoint": {"intervalSeconds": 20},
            "recovery": {"gracePeriodSeconds": 60},
            "volumes": {
                "checkpoints": {"claimName": "runs"},
                "data": {"claimName": "digits"},
                "models": {"claimName": "runs"},
            },
            **spec,
        },
    }


def distilled(name: str, student: str, epochs: int) -> Object:
    """A student of the teacher."""
    return job(name, student, epochs, teacher={"model": "teacher.pt"}, recipe="auto")


def play(folder: Path, teacher: Path | None, report: Callable[[str], None] = print) -> None:
    """Let it happen; `folder` then has Prometheus' data and story.json. Takes a quarter of an hour on two idle cores.

    `teacher`: weights of a detector of digits; None trains one first, which takes some minutes more.
    """
    volumes = {"checkpoints": folder / "runs", "data": folder / "digits", "models": folder / "runs"}
    volumes["checkpoints"].mkdir(parents=True)
    generate(volumes["data"], "detect", IMAGES, IMGSZ, seed=0)
    if teacher is not None:
        shutil.copy(teacher, volumes["models"] / "teacher.pt")
    with ControlPlane.start(folder / "control") as plane:
        api = Api(plane.kubeconfig)
        install_crd(api)
        operator = OperatorProcess(chart_user(plane, api), folder / "operator.log")
        operator.start(PROGRESS_POLL_SECONDS="1", PROGRESS_WRITE_SECONDS="2")
        try:
            team = Team(api, NAMESPACE, operator, Rank0(""))
            with Nodes(api, ("node0", "node1")), Discovery(folder / "targets", plane.kubeconfig) as discovery:
                scrapes = _scrapes(plane, operator, discovery.directory)
                with PrometheusServer(
                    folder / "prometheus", scrapes, rule_files=[RULES], interval_seconds=SCRAPE_SECONDS
                ) as server:
                    team.prepare()
                    server.wait_for(OperatorMetric.LEADS)
                    start = time.time()
                    with ProcessKubelet(api, NAMESPACE, volumes, folder / "pods") as kubelet:
                        scene = Scene(team, kubelet, report)
                        if teacher is None:
                            _train_a_teacher(scene, volumes["models"] / "teacher.pt")
                        _happen(scene)
                        time.sleep(10)  # the last scrapes
        finally:
            operator.stop()
    (folder / "story.json").write_text(json.dumps(asdict(Story(start, time.time(), "digits-nano"))))


@dataclass(frozen=True)
class Scene:
    """What the story acts on."""

    team: Team
    kubelet: ProcessKubelet
    report: Callable[[str], None]

    def submit(self, wanted: Object) -> None:
        """Create the job."""
        self.report(f"{wanted['metadata']['name']} is submitted")
        self.team.api.create(wanted, NAMESPACE)

    def status(self, name: str) -> Object:
        """The job's status."""
        found = self.team.api.get("DistillJob", NAMESPACE, name) or {}
        return dict(found.get("status") or {})

    def reaches(self, name: str, phase: str) -> None:
        """Wait until the job is in this phase."""
        wait_for(lambda: self.status(name).get("phase") == phase, PATIENCE_SECONDS, lambda: self.status(name))
        self.report(f"{name} is {phase}")

    def commits(self, name: str, share: float) -> None:
        """Wait until this share of the job's steps is committed."""

        def committed() -> bool:
            progress = self.status(name).get("progress") or {}
            return bool(progress.get("steps")) and progress.get("committedStep", 0) >= share * progress["steps"]

        wait_for(committed, PATIENCE_SECONDS, lambda: self.status(name))

    def pod(self, name: str) -> Object:
        """The job's pod."""
        (pod,) = self.team.api.list("Pod", NAMESPACE, labelSelector=f"distilljob.dev/job={name}")
        return pod


def _train_a_teacher(scene: Scene, weights: Path) -> None:
    scene.submit(job("digits-teacher", "yolo26s.yaml", 40))
    scene.reaches("digits-teacher", "Succeeded")
    shutil.copy(weights.parent / "digits-teacher" / JobFile.BEST, weights)


def _happen(scene: Scene) -> None:
    scene.submit(distilled("digits-nano", "yolo26n.yaml", 36))
    scene.submit(distilled("digits-small", "yolo26n.yaml", 22))
    time.sleep(20)
    scene.submit(distilled("digits-next", "yolo26n.yaml", 12))
    scene.commits("digits-nano", 0.3)
    _evict(scene, scene.pod("digits-nano"))
    scene.reaches("digits-nano", "Recovering")
    scene.commits("digits-small", 0.5)
    time.sleep(12)  # work that is not committed
    scene.kubelet.kill(scene.pod("digits-small"))
    scene.report("digits-small is killed")
    scene.commits("digits-nano", 0.7)
    scene.kubelet.kill(scene.pod("digits-nano"))
    scene.report("digits-nano is killed")
    scene.commits("digits-nano", 0.9)


def _evict(scene: Scene, pod: Object) -> None:
    name = pod["metadata"]["name"]
    scene.report(f"{name} is evicted")
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": NAMESPACE}}
    scene.team.api.request("POST", scene.team.api.path("Pod", NAMESPACE, name, "eviction"), eviction)


def _scrapes(plane: ControlPlane, operator: OperatorProcess, targets: Path) -> list[ScrapeConfig]:
    """The ranks as the chart's PodMonitor says, and the operator, which has no pod here."""
    rendered = plane.helm(
        "template", "distill-operator", str(CHART), "--namespace", "distill-system",
        "--api-versions", "monitoring.coreos.com/v1", "--set", "monitoring.podMonitor.enabled=true",
    )  # fmt: skip
    (monitor,) = (found for found in yaml.safe_load_all(rendered) if found and found["kind"] == "PodMonitor")
    address = f"127.0.0.1:{operator.metrics_port}"
    own = {"job_name": "distill-operator", "honor_labels": True, "static_configs": [{"targets": [address]}]}
    return [*scrape_configs(monitor, targets), own]
